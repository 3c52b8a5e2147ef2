create or replace function memory_plugin._semantic_sketched(
    p_namespaces text[], p_embedding @extschema:vector@.vector, p_unit @extschema:vector@.halfvec,
    p_filter memory_plugin._filter, p_limit integer, p_rows bigint,
    out nearest memory_plugin._candidate[], out exact boolean
)
-- _semantic_compare is not allowed beside parallel workers.
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan is right for all values: the live rows of some namespaces from the index that holds their sketches, and
-- vectors by their keys.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
-- What is sorted has no index to be read by; the rows by chance have.
set enable_sort = off
set jit = off
as $function$
declare
    -- A row is left out whose vector would have to lie so many standard deviations from where its sketch puts it.
    c_deviations constant double precision := 3.5;
    -- So many standard deviations the p_limit highest of p_rows normal numbers reach: of more rows, the sketches of the
    -- nearest are further off than those of others.
    v_height constant double precision := ln(greatest(p_rows::double precision / p_limit, 20));
    v_highest constant double precision := sqrt(2 * v_height - ln(4 * pi() * v_height));
    -- Half precision itself is no better.
    c_least_deviation constant double precision := 0.001;
    -- Rows by chance beside the first of the nearest: what holds for these alone must not pass for the rule.
    c_chance constant integer := 24;
    c_least constant integer := 2 * p_limit + 10;
    v_kinds constant text[] := coalesce(p_filter.kinds, '{@kinds@}');
    v_sources constant text[] := p_filter.sources;
    v_after constant timestamptz := p_filter.created_after;
    v_before constant timestamptz := p_filter.created_before;
    v_eight bit varying;
    v_four bit varying;
    v_two bit varying;
    v_one bit varying;
    v_chance integer := c_chance / least(cardinality(p_namespaces), 8);
    -- So many are seldom too few, and cost little more than fewer.
    v_take bigint := 8 * c_least + least(p_rows / 16, 8 * c_least);
    v_done bigint := 0;
    -- To sort all would take half as long again as to look at them: those further apart than so are left out at first.
    v_cut double precision := 'infinity';
    v_sample constant bigint := least(64 + p_rows / 64, 512);
    -- Up to here all of the rows are taken, in their order.
    v_seen double precision;
    v_names text[];
    v_ids uuid[];
    v_apart double precision[];
    v_count integer;
    v_at integer;
    v_until integer;
    v_part _candidate[];
    v_slope double precision;
    v_intercept double precision;
    v_deviation double precision;
    v_explained double precision;
    -- Rows whose sketches lie further apart from the question's are left out.
    v_far double precision := 'infinity';
    -- How far its sketch put a row from its place at most, in standard deviations, of those measured: where few numbers
    -- make up an embedding, some are much further off than the rest.
    v_worst double precision := 0;
    v_most double precision;
    v_again boolean := false;
    -- False: the sketches tell nothing, or too little.
    v_tell boolean := true;
    v_last double precision;
begin
    select q.eight, q.four, q.two, q.one into v_eight, v_four, v_two, v_one
    from _asked_signs(p_embedding) as q;
    nearest := '{}';
    if p_rows > 4 * v_take then
        select coalesce(percentile_disc(least(1.5 * v_take / p_rows, 1)) within group (order by s.apart), 'infinity')
        into v_cut
        from unnest(p_namespaces[:32]) as n (name)
        cross join lateral (
            select @sketches_apart(s.signs, v_eight, v_four, v_two, v_one)@ as apart
            from memory_sketches as s
            where s.namespace = n.name and s.kind = any (v_kinds) and coalesce(s.expires_at, 'infinity') > now()
            limit v_sample / least(cardinality(p_namespaces), 32)
        ) as s;
    end if;
    loop
        -- With some to spare, as v_far may yet move away.
        v_most := least(v_far + 2 * coalesce(v_deviation / nullif(-v_slope, 0), 0), v_cut);
        select array_agg(s.namespace), array_agg(s.id), array_agg(s.apart), count(*)
        into v_names, v_ids, v_apart, v_count
        from (
            select a.namespace, a.id, a.apart
            from (
                select s.namespace, s.id, @sketches_apart(s.signs, v_eight, v_four, v_two, v_one)@ as apart
                from memory_sketches as s
                where s.namespace = any (p_namespaces)
                    and s.kind = any (v_kinds)
                    and coalesce(s.expires_at, 'infinity') > now()
                    and (v_sources is null or s.source = any (v_sources))
                    and (v_after is null or s.created_at > v_after)
                    and (v_before is null or s.created_at < v_before)
                -- Or it would be reckoned twice.
                offset 0
            ) as a
            where a.apart <= v_most
            order by a.apart, a.id, a.namespace
            limit v_take offset v_done
        ) as s;
        if v_count < c_least and v_cut < 'infinity' then
            v_cut := 'infinity';
            continue;
        end if;
        if v_again and v_count = v_take then
            -- To fetch so many one by one takes longer than to look at all.
            v_tell := false;
            exit;
        end if;
        v_at := 0;
        loop
            -- How many of them are not too far.
            v_until := case when v_far = 'infinity' then v_count else coalesce(width_bucket(v_far, v_apart), 0) end;
            exit when v_until <= v_at;
            -- What is found brings v_far nearer.
            v_until := least(v_until, v_at + greatest(c_least, 3 * cardinality(nearest)));
            with chosen as (
                select c.namespace, c.id, c.apart, true as best
                from unnest(v_names[v_at + 1:v_until], v_ids[v_at + 1:v_until], v_apart[v_at + 1:v_until])
                    as c (namespace, id, apart)
                union all
                select s.namespace, s.id, @sketches_apart(s.signs, v_eight, v_four, v_two, v_one)@ as apart, false as best
                from unnest(p_namespaces[:8]) as n (name)
                cross join lateral (
                    select v.namespace, v.id from memory_vectors as v where v.namespace = n.name order by v.id limit v_chance
                ) as c
                inner join memory_sketches as s on c.namespace = s.namespace and c.id = s.id
            ),

            measured as materialized (
                select c.*, -(v.embedding operator(@extschema:vector@.<#>) p_unit) as score
                from chosen as c
                inner join memory_vectors as v on c.namespace = v.namespace and c.id = v.id
            ),

            fitted as materialized (
                select
                    coalesce(v_slope, regr_slope(m.score, m.apart)) as slope,
                    coalesce(v_intercept, regr_intercept(m.score, m.apart)) as intercept,
                    coalesce(
                        v_deviation,
                        sqrt(greatest(regr_syy(m.score, m.apart) * (1 - regr_r2(m.score, m.apart)), 0) / count(*))
                    ) as deviation,
                    coalesce(v_explained, least(regr_r2(m.score, m.apart), 1)) as explained
                from measured as m
            )

            select
                coalesce(m.best, '{}'), f.slope, f.intercept, f.deviation, f.explained,
                greatest(v_worst, m.off / greatest(f.deviation, c_least_deviation))
            into v_part, v_slope, v_intercept, v_deviation, v_explained, v_worst
            from fitted as f
            cross join lateral (
                select
                    array_agg(row(m.namespace, m.id, m.score)::_candidate) filter (where m.best) as best,
                    max(abs(m.score - f.intercept - f.slope * m.apart)) as off
                from measured as m
            ) as m;
            nearest := nearest || v_part;
            v_chance := 0;
            v_at := v_until;
            select c.score into v_last from unnest(nearest) as c order by c.score desc limit 1 offset p_limit - 1;
            v_far := coalesce(
                (
                    v_last - v_intercept
                    - greatest(
                        c_deviations, 2.5 * sqrt(v_explained) + v_highest * sqrt(1 - v_explained), 1.2 * v_worst
                    )
                    * greatest(v_deviation, c_least_deviation)
                ) / nullif(least(v_slope, 0), 0),
                'infinity'
            );
        end loop;
        -- All rows were taken, and measured.
        exact := v_at = v_count and v_count < v_take and v_cut = 'infinity' and not v_again;
        v_seen := case when v_count < v_take then v_cut else v_apart[v_count] end;
        exit when not v_again and (v_seen = 'infinity' or v_far < v_seen) or v_again and v_far <= v_most;
        v_tell := not v_again and v_far < 'infinity';
        exit when not v_tell;
        -- Behind those taken there may be more that are not too far.
        v_done := v_count;
        v_take := greatest(p_rows / 4, v_take);
        v_cut := 'infinity';
        v_again := true;
    end loop;
    if not v_tell then
        select c.nearest, c.exact into nearest, exact
        from _semantic_compare(p_namespaces, p_unit, p_filter, p_limit) as c;
        return;
    end if;
    nearest := (
        select coalesce(array_agg(c), '{}')
        from unnest(nearest) as c
        where v_last is null or c.score >= v_last - _semantic_doubt()
    );
end
$function$;

comment on function memory_plugin._semantic_sketched(
    text[], @extschema:vector@.vector, @extschema:vector@.halfvec, memory_plugin._filter, integer, bigint
) is
    'The p_limit nearest to p_unit of some p_rows live rows of the namespaces, and any that half precision may confuse '
    'with the last of them, unordered. Sketches put all rows in an order, and the first are measured by their vectors; '
    'a regression of what is measured on what the sketches say tells how far down the order a row might still belong '
    'to the answer. Exact where that is all of them; else a row that belongs to it is missed by a chance of some '
    'thousandths.';
