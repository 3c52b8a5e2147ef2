create or replace function memory_plugin._planned_rows(p_statement text)
returns double precision
-- explain is for volatile functions only.
language plpgsql volatile parallel unsafe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_plan json;
begin
    execute 'explain (format json) ' || p_statement into v_plan;
    return (v_plan #>> '{0,Plan,Plan Rows}')::double precision;
end
$function$;

comment on function memory_plugin._planned_rows(text) is
    'How many rows the planner expects of a statement, from the statistics of the last analyze; it is not run.';
