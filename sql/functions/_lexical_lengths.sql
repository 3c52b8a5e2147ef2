create or replace function memory_plugin._lexical_rows(p_namespaces text[], p_limit integer)
returns bigint
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call: a walk along an index that is cut off where it has gone far enough.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
begin
    return (
        select count(*)
        from (
            select from memory_lengths as l
            where l.namespace = any (p_namespaces) and (l.expires_at is null or l.expires_at > now())
            limit p_limit
        ) as n
    );
end
$function$;

comment on function memory_plugin._lexical_rows(text[], integer) is
    'How many live memories the namespaces hold, up to p_limit.';

create or replace function memory_plugin._lexical_each(p_namespaces text[], p_most integer)
returns integer
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
declare
    v_each integer := greatest(p_most / cardinality(p_namespaces), 1);
    v_large text[] := p_namespaces;
    v_left integer := p_most;
    v_more integer;
begin
    if cardinality(p_namespaces) > 1 and _lexical_rows(p_namespaces, p_most + 1) <= p_most then
        return null;
    end if;
    -- What small namespaces leave goes to the others.
    for v_round in 1 .. 8 loop
        exit when cardinality(v_large) = 1;
        with sized as materialized (
            select
                n.name,
                (
                    select count(*)
                    from (
                        select from memory_lengths as l
                        where l.namespace = n.name and (l.expires_at is null or l.expires_at > now())
                        limit v_each + 1
                    ) as counted
                ) as rows
            from unnest(v_large) as n (name)
        )

        select
            coalesce(array_agg(s.name) filter (where s.rows > v_each), '{}'),
            v_left - coalesce(sum(s.rows) filter (where s.rows <= v_each), 0)
        into v_large, v_left
        from sized as s;
        exit when v_large = '{}';
        v_more := v_left / cardinality(v_large);
        exit when v_more <= v_each;
        v_each := v_more;
    end loop;
    return v_each;
end
$function$;

comment on function memory_plugin._lexical_each(text[], integer) is
    'How many live memories of each of several namespaces may be read, so that together they are at most p_most, or '
    'one of each; null where all may be.';

create or replace function memory_plugin._lexical_lengths(
    p_namespaces text[], p_most integer,
    out names text[], out memories bigint[], out total double precision, out average double precision,
    out counted boolean
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call: a walk along the key's index, which holds all that is asked.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $function$
begin
    select
        array_agg(s.namespace) filter (where s.live > 0), array_agg(s.live) filter (where s.live > 0),
        greatest(sum(s.live), 1), greatest(sum(s.words) / greatest(sum(s.live), 1), 1),
        coalesce(sum(s.n), 0) <= p_most
    into names, memories, total, average, counted
    from (
        select
            l.namespace, count(*) as n, count(*) filter (where l.live) as live,
            sum(l.words) filter (where l.live) as words
        from (
            select m.namespace, m.words, m.expires_at is null or m.expires_at > now() as live
            from memory_lengths as m where m.namespace = any (p_namespaces)
            limit p_most + 1
        ) as l
        group by l.namespace
    ) as s;
end
$function$;

comment on function memory_plugin._lexical_lengths(text[], integer) is
    'Live memories of each namespace that has any, of all together, and their average number of words. counted: false '
    'where there are more than p_most, expired ones included; the rest then tells of a part only.';
