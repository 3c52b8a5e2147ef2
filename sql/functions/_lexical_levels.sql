create or replace function memory_plugin._lexical_levels(
    p_bounds double precision[], p_shares double precision[], p_total double precision,
    out bounds double precision[], out rows double precision[]
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_terms constant integer := cardinality(p_bounds);
begin
    select array_agg(l.bound order by l.bound desc), array_agg(l.rows order by l.bound desc)
    into bounds, rows
    from (
        select s.bound, sum(sum(s.rows)) over (order by s.bound desc) as rows
        from (
            -- A set of terms is a number, whose bits say which are in it.
            select
                sum(case when (m.mask >> (b.bit - 1)) & 1 = 1 then p_bounds[b.bit] else 0 end) as bound,
                p_total * exp(sum(ln(greatest(
                    case when (m.mask >> (b.bit - 1)) & 1 = 1 then p_shares[b.bit] else 1 - p_shares[b.bit] end, 1e-9
                )))) as rows
            from generate_series(1, (1 << c_terms) - 1) as m (mask)
            cross join generate_series(1, c_terms) as b (bit)
            group by m.mask
        ) as s
        group by s.bound
    ) as l;
end
$function$;

comment on function memory_plugin._lexical_levels(double precision[], double precision[], double precision) is
    'The scores that sets of terms can reach at most, the highest first, and for each about how many of p_total '
    'memories have a set that can reach it. p_bounds: what each term adds at most; p_shares: the part of the memories '
    'that holds it, as if terms occurred independently of each other.';
