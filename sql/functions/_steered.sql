create or replace function memory_plugin._steered(
    p_embedding @extschema:vector@.vector, p_namespace text, p_kinds text[], p_weights real[]
)
returns @extschema:vector@.halfvec
language sql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select
        case
            -- hnsw takes up to 4,000 numbers of half precision: above 3,981 there is no room for the tail.
            when @dimensions@ > 3981 then @extschema:vector@.l2_normalize(p_embedding)
            else
                @extschema:vector@.l2_normalize(p_embedding)
                operator(@extschema:vector@.||)
                -- 16 numbers: with fewer, namespaces crowd each other; with more, a walk through the graph loses its way.
                (
                    @extschema:vector@.l2_normalize(
                        (
                            select array_agg((get_byte(decode(md5(p_namespace), 'hex'), b.i) - 127.5)::real order by b.i)
                            from generate_series(0, 15) as b (i)
                        )::@extschema:vector@.vector
                    )
                    operator(@extschema:vector@.*) array_fill(p_weights[1], array[16])::@extschema:vector@.vector
                )
                operator(@extschema:vector@.||) array[
                    case when 'fact' = any (p_kinds) then p_weights[2] else 0 end,
                    case when 'summary' = any (p_kinds) then p_weights[2] else 0 end,
                    case when 'checkpoint' = any (p_kinds) then p_weights[2] else 0 end
                ]::@extschema:vector@.vector
        end::@extschema:vector@.halfvec
$function$;

comment on function memory_plugin._steered(@extschema:vector@.vector, text, text[], real[]) is
    'An embedding brought to unit length, and after it a tail for the namespace (of length p_weights[1]) and the kinds '
    '(p_weights[2] each): what memory_vectors holds and what its graph is asked.';
