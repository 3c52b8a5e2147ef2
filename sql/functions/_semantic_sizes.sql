create or replace function memory_plugin._semantic_sizes(
    p_namespaces text[], p_kinds text[], p_each integer, p_all integer,
    out small text[], out large text[], out total bigint
)
-- _planned_rows is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- Counting has one plan: an index-only scan of each namespace, cut off where it is large.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $function$
declare
    v_kinds constant text[] := coalesce(p_kinds, '{@kinds@}');
    -- What the planner knows of need not be counted further. To ask it takes as long as to count so many.
    c_ask constant integer := 1000;
    -- Of several namespaces each has its part, and the others what one leaves.
    v_each integer := greatest(
        least(p_each, p_all / cardinality(p_namespaces), case when p_each > 3 * c_ask then c_ask end), 20
    );
    v_more integer;
    v_ask boolean := false;
    v_count record;
begin
    small := '{}';
    large := p_namespaces;
    total := 0;
    loop
        -- Materialized, or each look at the number would count anew.
        with sized as materialized (
            select
                n.name,
                case
                    when v_ask then least(_semantic_about(array[n.name], p_kinds, v_each), v_each + 1)
                    else (
                        select count(*)
                        from (
                            select from memory_vectors as v
                            where v.namespace = n.name
                                and v.kind = any (v_kinds)
                                and coalesce(v.expires_at, 'infinity') > now()
                            limit v_each + 1
                        ) as counted
                    )
                end as rows
            from unnest(large) as n (name)
        )

        select
            coalesce(array_agg(s.name) filter (where s.rows <= v_each), '{}') as small,
            coalesce(array_agg(s.name) filter (where s.rows > v_each), '{}') as large,
            coalesce(sum(s.rows) filter (where s.rows <= v_each), 0) as total
        into v_count
        from sized as s
        where s.rows > 0;
        small := small || v_count.small;
        large := v_count.large;
        total := total + v_count.total;
        exit when large = '{}';
        v_more := least(p_each, (p_all - total) / cardinality(large));
        exit when v_more <= v_each or v_more < 2 * v_each and v_more < p_each;
        v_each := v_more;
        v_ask := v_each > c_ask;
    end loop;
end
$function$;

comment on function memory_plugin._semantic_sizes(text[], text[], integer, integer) is
    'Which namespaces have up to p_each live rows of the kinds (fewer, where all such might have more than p_all), and '
    'which have more; total: the rows of the small ones. Those without any are in neither.';

create or replace function memory_plugin._semantic_planned(p_namespaces text[], p_kinds text[])
returns double precision
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return _planned_rows(
        format(
            'select from memory_plugin.memory_vectors as v '
            'where v.namespace = any (%L) and coalesce(v.expires_at, ''infinity'') > now()',
            p_namespaces
        )
        -- All kinds are not named: the planner takes their parts for less than the whole, up to a third of it.
        || case when p_kinds is null then '' else format(' and v.kind = any (%L)', p_kinds) end
    );
end
$function$;

comment on function memory_plugin._semantic_planned(text[], text[]) is
    'How many live rows of the kinds the planner supposes the namespaces to have, by the statistics of the last '
    'analyze: within some percent for the large ones of a store, far off where much was written or deleted since.';

create or replace function memory_plugin._semantic_about(p_namespaces text[], p_kinds text[], p_most integer)
returns bigint
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_planned constant double precision := _semantic_planned(p_namespaces, p_kinds);
begin
    return case when v_planned > 1000 then v_planned else _semantic_rows(p_namespaces, p_kinds, p_most) end;
end
$function$;

comment on function memory_plugin._semantic_about(text[], text[], integer) is
    'About how many live rows of the kinds the namespaces have, by the statistics of the last analyze; where these '
    'know of few, as many as there are, up to p_most + 1.';

create or replace function memory_plugin._semantic_many(p_namespaces text[], p_kinds text[], p_most integer)
returns boolean
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    return _semantic_about(p_namespaces, p_kinds, p_most) > p_most;
end
$function$;

comment on function memory_plugin._semantic_many(text[], text[], integer) is
    'Whether the namespaces have more than p_most live rows of the kinds, by _semantic_about().';

create or replace function memory_plugin._semantic_rows(p_namespaces text[], p_kinds text[], p_most integer)
returns bigint
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
begin
    return (
        select count(*)
        from (
            select from memory_vectors as v
            where v.namespace = any (p_namespaces)
                and v.kind = any (coalesce(p_kinds, '{@kinds@}'))
                and coalesce(v.expires_at, 'infinity') > now()
            limit p_most + 1
        ) as counted
    );
end
$function$;

comment on function memory_plugin._semantic_rows(text[], text[], integer) is
    'How many live rows of the kinds the namespaces have; p_most + 1 where they have more than p_most.';
