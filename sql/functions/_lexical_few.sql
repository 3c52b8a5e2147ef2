create or replace function memory_plugin._lexical_few(
    p_namespaces text[], p_plan memory_plugin._lexical_plan, p_filter memory_plugin._filter, p_limit integer,
    p_total double precision,
    out candidates memory_plugin._candidate[], out scored bigint, out exact boolean,
    out plan memory_plugin._lexical_plan
)
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
-- One plan for every call: making one takes longer than reading the rows.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set jit = off
as $function$
declare
    v_terms constant integer := cardinality(p_plan.terms);
    v_1 constant tsquery := p_plan.terms[1];
    v_2 constant tsquery := p_plan.terms[2];
    v_3 constant tsquery := p_plan.terms[3];
    v_4 constant tsquery := p_plan.terms[4];
    v_5 constant tsquery := p_plan.terms[5];
    v_6 constant tsquery := p_plan.terms[6];
    v_7 constant tsquery := p_plan.terms[7];
    v_8 constant tsquery := p_plan.terms[8];
    v_required constant tsquery := p_plan.required;
    v_absent constant text := p_plan.absent[1];
    v_kinds constant text[] := p_filter.kinds;
    v_sources constant text[] := p_filter.sources;
    v_after constant timestamptz := p_filter.created_after;
    v_before constant timestamptz := p_filter.created_before;
    v_k1 constant double precision := p_plan.k1;
    v_b constant double precision := p_plan.b;
    v_any tsquery := v_1;
    v_weights double precision[];
begin
    for i in 2 .. v_terms loop
        v_any := v_any || p_plan.terms[i];
    end loop;
    plan := p_plan;
    with docs as materialized (
        select
            r.namespace, r.id, r.created_at,
            @word_count(r.content_tsv)@ as words,
            @occurrences(r.content_tsv, v_1)@ as n1,
            case when v_terms > 1 then @occurrences(r.content_tsv, v_2)@ end as n2,
            case when v_terms > 2 then @occurrences(r.content_tsv, v_3)@ end as n3,
            case when v_terms > 3 then @occurrences(r.content_tsv, v_4)@ end as n4,
            case when v_terms > 4 then @occurrences(r.content_tsv, v_5)@ end as n5,
            case when v_terms > 5 then @occurrences(r.content_tsv, v_6)@ end as n6,
            case when v_terms > 6 then @occurrences(r.content_tsv, v_7)@ end as n7,
            case when v_terms > 7 then @occurrences(r.content_tsv, v_8)@ end as n8,
            -- The rules `demanded` and `filtered`, from constants: a field of a composite is taken out again for each row.
            (v_required is null or r.content_tsv @@ v_required)
            and (v_absent is null or not r.content ~* v_absent)
            and (v_kinds is null or r.kind = any (v_kinds))
            and (v_sources is null or r.source = any (v_sources))
            and (v_after is null or r.created_at > v_after)
            and (v_before is null or r.created_at < v_before) as wanted
        from memory_records as r
        where r.namespace = any (p_namespaces) and (r.expires_at is null or r.expires_at > now())
            -- "is true" keeps this from the index on words, where a common word of a large store is a long way.
            and (r.content_tsv @@ v_any) is true
    ),

    corpus as materialized (
        select
            v_k1 * (1 - v_b) as fixed, v_k1 * v_b / p_plan.average_length as by_length,
            ln((p_total + 1) / (c.f1 + 0.5::double precision)) as w1,
            ln((p_total + 1) / (c.f2 + 0.5::double precision)) as w2,
            ln((p_total + 1) / (c.f3 + 0.5::double precision)) as w3,
            ln((p_total + 1) / (c.f4 + 0.5::double precision)) as w4,
            ln((p_total + 1) / (c.f5 + 0.5::double precision)) as w5,
            ln((p_total + 1) / (c.f6 + 0.5::double precision)) as w6,
            ln((p_total + 1) / (c.f7 + 0.5::double precision)) as w7,
            ln((p_total + 1) / (c.f8 + 0.5::double precision)) as w8
        from (
            select
                count(*) filter (where d.n1 > 0) as f1,
                count(*) filter (where d.n2 > 0) as f2,
                count(*) filter (where d.n3 > 0) as f3,
                count(*) filter (where d.n4 > 0) as f4,
                count(*) filter (where d.n5 > 0) as f5,
                count(*) filter (where d.n6 > 0) as f6,
                count(*) filter (where d.n7 > 0) as f7,
                count(*) filter (where d.n8 > 0) as f8
            from docs as d
        ) as c
    ),

    hits as (
        select s.namespace, s.id, s.created_at, s.score
        from (
            select
                d.namespace, d.id, d.created_at,
                (v_k1 + 1) * (
                    c.w1 * d.n1 / (d.n1 + c.fixed + c.by_length * d.words)
                    + case when v_terms > 1 then c.w2 * d.n2 / (d.n2 + c.fixed + c.by_length * d.words) else 0 end
                    + case when v_terms > 2 then c.w3 * d.n3 / (d.n3 + c.fixed + c.by_length * d.words) else 0 end
                    + case when v_terms > 3 then c.w4 * d.n4 / (d.n4 + c.fixed + c.by_length * d.words) else 0 end
                    + case when v_terms > 4 then c.w5 * d.n5 / (d.n5 + c.fixed + c.by_length * d.words) else 0 end
                    + case when v_terms > 5 then c.w6 * d.n6 / (d.n6 + c.fixed + c.by_length * d.words) else 0 end
                    + case when v_terms > 6 then c.w7 * d.n7 / (d.n7 + c.fixed + c.by_length * d.words) else 0 end
                    + case when v_terms > 7 then c.w8 * d.n8 / (d.n8 + c.fixed + c.by_length * d.words) else 0 end
                ) as score
            from docs as d cross join corpus as c
            where d.wanted
        ) as s
        order by s.score desc, s.created_at desc, s.id, s.namespace
        limit p_limit
    )

    select
        (
            select array_agg(
                row(h.namespace, h.id, h.score)::_candidate order by h.score desc, h.created_at desc, h.id, h.namespace
            )
            from hits as h
            where h.score > 0
        ),
        (array[c.w1, c.w2, c.w3, c.w4, c.w5, c.w6, c.w7, c.w8])[:v_terms]
    into candidates, v_weights
    from corpus as c;
    plan.weights := v_weights;
    scored := p_total;
    exact := true;
end
$function$;

comment on function memory_plugin._lexical_few(
    text[], memory_plugin._lexical_plan, memory_plugin._filter, integer, double precision
) is
    'The best memories for one to eight words by reading every memory of the namespaces, at most some thousand: what '
    'most questions ask. p_plan has their average_length, p_total is how many of them are alive. plan: with the '
    'weights found.';
