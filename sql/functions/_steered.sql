create or replace function memory_plugin._steered(
    p_embedding @extschema:vector@.vector, p_namespace text, p_kinds text[], p_weights real[]
)
returns @extschema:vector@.halfvec
-- Not in the language sql, which would plan the expression anew for each row that is written.
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    v_code bytea;
    v_tail real[] := array_fill(0::real, array[@tail_length@]);
    v_length double precision := 0;
begin
    -- hnsw takes up to 4,000 numbers of half precision: above 3,981 there is no room for the tail.
    if @extschema:vector@.vector_dims(p_embedding) > @graph_dimensions@ then
        return v_unit::@extschema:vector@.halfvec;
    end if;
    if p_weights[1] <> 0 then
        -- 16 numbers: with fewer, namespaces crowd each other; with more, a walk through the graph loses its way.
        v_code := decode(md5(p_namespace), 'hex');
        for i in 0..15 loop
            v_tail[i + 1] := get_byte(v_code, i) - 127.5;
            v_length := v_length + v_tail[i + 1]::double precision * v_tail[i + 1];
        end loop;
        v_length := sqrt(v_length);
        for i in 1..16 loop
            -- Rounded as l2_normalize rounds: first the part, then the weight.
            v_tail[i] := (v_tail[i] / v_length)::real * p_weights[1];
        end loop;
    end if;
    v_tail[17] := case when 'fact' = any (p_kinds) then p_weights[2] else 0 end;
    v_tail[18] := case when 'summary' = any (p_kinds) then p_weights[2] else 0 end;
    v_tail[19] := case when 'checkpoint' = any (p_kinds) then p_weights[2] else 0 end;
    return (v_unit operator(@extschema:vector@.||) v_tail::@extschema:vector@.vector)::@extschema:vector@.halfvec;
end
$function$;

comment on function memory_plugin._steered(@extschema:vector@.vector, text, text[], real[]) is
    'An embedding brought to unit length, and after it a tail for the namespace (of length p_weights[1]) and the kinds '
    '(p_weights[2] each). memory_vectors holds embeddings with the tail of their row; a walk through its graph, by '
    'inner product, is led to the rows of a namespace and some kinds by their tail. Weights of zero: no tail, the '
    'inner product is the cosine similarity. p_namespace and p_kinds may then be anything.';
