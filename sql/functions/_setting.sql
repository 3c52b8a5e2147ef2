create or replace function memory_plugin._setting(
    p_name text, p_default double precision, p_least double precision, p_most double precision
)
returns double precision
language plpgsql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_set constant text := nullif(current_setting('memory_plugin.' || p_name, true), '');
    v_number double precision;
begin
    if v_set is null then
        return p_default;
    end if;
    -- Anything else has no number to compare, or none that Postgres could hold.
    v_number := case when v_set ~ e'^\\s*[-+]?(\\d{1,9}(\\.\\d{0,15})?|\\.\\d{1,15})([eE][-+]?\\d{1,2})?\\s*$' then v_set::double precision end;
    if v_number is null or v_number not between p_least and p_most then
        raise exception using errcode = 'MP009',
            message = format('the setting memory_plugin.%s must be a number between %s and %s', p_name, p_least, p_most),
            hint = format(
                'Set or reset it where it was set: in the session, or with alter role or alter database … reset memory_plugin.%s.',
                p_name
            );
    end if;
    return v_number;
end
$function$;

comment on function memory_plugin._setting(text, double precision, double precision, double precision) is
    'A setting memory_plugin.p_name, or p_default where it is not set. Errors: MP009 for what is not a number from '
    'p_least to p_most.';
