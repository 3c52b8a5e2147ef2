create or replace function memory_plugin.search_recall(namespaces text[], sample integer default 100)
returns table (
    namespace text, sampled integer, recall double precision, worst double precision, search_ms double precision,
    exact_ms double precision
)
language plpgsql stable parallel unsafe
-- The caller needs execute and no right on the tables: access.sql says who has it.
security definer
set search_path = pg_catalog, memory_plugin, pg_temp
set row_security = on
set plan_cache_mode = force_custom_plan
set jit = off
as $function$
#variable_conflict use_column
declare
    c_places constant integer := 10;
    v_unfiltered constant _filter := row(null, null, null, null)::_filter;
    v_name text;
    v_question record;
    v_found text[];
    v_best text[];
    v_compared _candidate[];
    v_began timestamptz;
    v_between timestamptz;
    v_share double precision;
    v_all integer := 0;
    v_all_shares double precision := 0;
    v_all_worst double precision;
    v_all_search double precision := 0;
    v_all_exact double precision := 0;
begin
    perform _check_search(search_recall.namespaces, 1, v_unfiltered, null, null, null, null, 0, null, null);
    if search_recall.sample is null or search_recall.sample not between 1 and 1000 then
        raise exception using errcode = 'MP001', message = 'sample must be between 1 and 1000';
    end if;
    for v_name in
        select n.name from memory_namespaces as n
        where n.name = any (_visible_namespaces(search_recall.namespaces))
            and (n.expires_at is null or n.expires_at > now())
        order by n.name
    loop
        namespace := v_name;
        sampled := 0;
        recall := 0;
        worst := null;
        search_ms := 0;
        exact_ms := 0;
        for v_question in
            select r.id, r.embedding
            from (
                -- By chance, and the same ones each time.
                select v.id from memory_vectors as v
                where v.namespace = v_name and (v.expires_at is null or v.expires_at > now())
                order by uuid_hash_extended(v.id, 0), v.id
                limit search_recall.sample
            ) as s
            inner join memory_records as r on r.namespace = v_name and s.id = r.id
        loop
            v_began := clock_timestamp();
            -- It finds itself, which proves nothing: one place more, and without itself.
            select coalesce(array_agg(h.id::text) filter (where h.id <> v_question.id), '{}') into v_found
            from search(array[v_name], embedding => v_question.embedding, max_results => c_places + 1) as h;
            v_between := clock_timestamp();
            v_compared := _semantic_measured(
                (
                    _semantic_compare(
                        array[v_name], _steered(v_question.embedding, '', null, '{0,0}'), v_unfiltered, c_places + 1
                    )
                ).nearest,
                v_question.embedding, c_places + 1
            );
            select coalesce(array_agg(e.id::text order by e.place) filter (where e.id <> v_question.id), '{}') into v_best
            from unnest(v_compared) with ordinality as e (namespace, id, score, place);
            search_ms := search_ms + 1000 * extract(epoch from v_between - v_began);
            exact_ms := exact_ms + 1000 * extract(epoch from clock_timestamp() - v_between);
            select coalesce(avg((b.id = any (v_found))::integer), 1) into v_share
            from unnest(v_best[:c_places]) as b (id);
            sampled := sampled + 1;
            recall := recall + v_share;
            worst := least(worst, v_share);
        end loop;
        v_all := v_all + sampled;
        v_all_shares := v_all_shares + recall;
        v_all_worst := least(v_all_worst, worst);
        v_all_search := v_all_search + search_ms;
        v_all_exact := v_all_exact + exact_ms;
        recall := recall / nullif(sampled, 0);
        search_ms := search_ms / nullif(sampled, 0);
        exact_ms := exact_ms / nullif(sampled, 0);
        return next;
    end loop;
    namespace := null;
    sampled := v_all;
    recall := v_all_shares / nullif(v_all, 0);
    worst := v_all_worst;
    search_ms := v_all_search / nullif(v_all, 0);
    exact_ms := v_all_exact / nullif(v_all, 0);
    return next;
end
$function$;

comment on function memory_plugin.search_recall(text[], integer) is
    'Measure how much of the exact answer search by embedding finds. For each live namespace named, and for all of '
    'them in a last row without a name, up to sample (1 to 1000) of its stored embeddings are searched for their '
    'ten nearest others, once through search() and once by comparing every row. recall is the mean share found, '
    'worst the least, search_ms and exact_ms the mean times; null where there is no embedding. The same embeddings '
    'are taken each time. Each one reads all of its namespace, at about a microsecond a row. Errors: MP001 for a '
    'bad argument.';

revoke all on function memory_plugin.search_recall(text[], integer) from public;
