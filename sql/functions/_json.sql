-- Reading a JSON body: the value of one member in its SQL type. Absent and null are null; a wrong JSON type
-- raises MP001.

create or replace function memory_plugin._json_body(p_body json)
returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if p_body is null or json_typeof(p_body) <> 'object' then
        raise exception using errcode = 'MP001', message = 'body must be a JSON object';
    end if;
end
$function$;

comment on function memory_plugin._json_body(json) is 'Raise MP001 unless the body is a JSON object.';

create or replace function memory_plugin._json_text(p_field text, p_value json)
returns text
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    case json_typeof(p_value)
        when 'string' then return p_value #>> '{}';
        when 'null' then return null;
        else
            raise exception using errcode = 'MP001', message = format('%s must be a string', p_field);
    end case;
end
$function$;

comment on function memory_plugin._json_text(text, json) is 'A string member, or MP001.';

create or replace function memory_plugin._json_texts(p_field text, p_value json, p_or text default '')
returns text[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_texts text[];
    v_strings boolean;
begin
    if json_typeof(p_value) = 'null' then
        return null;
    end if;
    if json_typeof(p_value) = 'array' then
        select array_agg(e.v #>> '{}' order by e.place), bool_and(json_typeof(e.v) = 'string')
        into v_texts, v_strings
        from json_array_elements(p_value) with ordinality as e (v, place);
        if v_strings is not false then
            return coalesce(v_texts, '{}');
        end if;
    end if;
    raise exception using errcode = 'MP001', message = format('%s must be %san array of strings', p_field, p_or);
end
$function$;

comment on function memory_plugin._json_texts(text, json, text) is
    'A member that is an array of strings, or MP001, which says p_or first.';

create or replace function memory_plugin._json_boolean(p_field text, p_value json)
returns boolean
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if json_typeof(p_value) = 'null' then
        return null;
    end if;
    if json_typeof(p_value) <> 'boolean' then
        raise exception using errcode = 'MP001', message = format('%s must be true or false', p_field);
    end if;
    return p_value::text::boolean;
end
$function$;

comment on function memory_plugin._json_boolean(text, json) is 'A boolean member, or MP001.';

create or replace function memory_plugin._json_number(p_field text, p_value json)
returns numeric
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_number numeric;
begin
    if json_typeof(p_value) = 'null' then
        return null;
    end if;
    if json_typeof(p_value) <> 'number' then
        raise exception using errcode = 'MP001', message = format('%s must be a number', p_field);
    end if;
    -- An exponent of thousands would be a number of as many digits.
    if p_value::text ~ '[eE][+-]?0*[1-9][0-9]{3}' then
        raise exception using errcode = 'MP001', message = format('%s is out of range', p_field);
    end if;
    v_number := p_value::text::numeric;
    -- So that the number can become double precision: there is none much nearer to zero.
    if v_number <> 0 and abs(v_number) < 1e-300 then
        return sign(v_number) * 1e-300;
    end if;
    if abs(v_number) > 1e300 then
        raise exception using errcode = 'MP001', message = format('%s is out of range', p_field);
    end if;
    return v_number;
end
$function$;

comment on function memory_plugin._json_number(text, json) is 'A number member, or MP001.';

create or replace function memory_plugin._json_integer(p_field text, p_value json, p_min integer, p_max integer)
returns integer
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_number numeric;
begin
    if json_typeof(p_value) = 'null' then
        return null;
    end if;
    if json_typeof(p_value) <> 'number' then
        raise exception using errcode = 'MP001', message = format('%s must be an integer', p_field);
    end if;
    v_number := _json_number(p_field, p_value);
    if v_number <> trunc(v_number) then
        raise exception using errcode = 'MP001', message = format('%s must be an integer', p_field);
    end if;
    if v_number not between p_min and p_max then
        raise exception using errcode = 'MP001',
            message = format('%s must be between %s and %s', p_field, p_min, p_max);
    end if;
    return v_number::integer;
end
$function$;

comment on function memory_plugin._json_integer(text, json, integer, integer) is
    'An integer member from p_min to p_max, or MP001. 5.0 is an integer, 1.5 is not.';

create or replace function memory_plugin._json_object(p_field text, p_value json)
returns jsonb
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if json_typeof(p_value) = 'null' then
        return null;
    end if;
    if json_typeof(p_value) <> 'object' then
        raise exception using errcode = 'MP001', message = format('%s must be a JSON object', p_field);
    end if;
    return p_value::jsonb;
exception
    when untranslatable_character or invalid_text_representation then
        raise exception using errcode = 'MP001',
            message = format(e'%s must not contain \\u0000 or a lone surrogate', p_field);
    when numeric_value_out_of_range or program_limit_exceeded then
        raise exception using errcode = 'MP001', message = format('%s holds a value that is too large', p_field);
end
$function$;

comment on function memory_plugin._json_object(text, json) is 'A member that is a JSON object, or MP001.';

create or replace function memory_plugin._json_time(p_field text, p_value json)
returns timestamptz
language plpgsql stable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_text text := _json_text(p_field, p_value);
    v_offset text;
    v_time timestamptz;
begin
    if v_text is null then
        return null;
    end if;
    -- Postgres would take an hour of 24 for the next day's first.
    if v_text !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)([.][0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'
    then
        raise exception using errcode = 'MP001', message = format('%s must be an RFC 3339 time', p_field),
            hint = 'Like 2030-01-31T12:00:00Z.';
    end if;
    -- Postgres reads a time of at most 128 characters, and an offset of less than 16 hours.
    v_text := regexp_replace(v_text, '([.][0-9]{9})[0-9]+', e'\\1');
    v_offset := substring(v_text from '[+-][0-9]{2}:[0-9]{2}$');
    if v_offset is null then
        v_time := v_text::timestamptz;
    else
        v_time := (left(v_text, -6) || 'Z')::timestamptz - v_offset::interval;
    end if;
    -- The last moment that can be written, as some clients say "never", is not rounded up to one that cannot.
    if v_time = '10000-01-01 00:00:00+00' and v_text ~ '[.][0-9]{6}[5-9]' then
        v_time := v_time - interval '1 microsecond';
    end if;
    return v_time;
exception
    when datetime_field_overflow or invalid_datetime_format or invalid_time_zone_displacement_value then
        raise exception using errcode = 'MP001', message = format('%s must be an RFC 3339 time', p_field),
            hint = 'Like 2030-01-31T12:00:00Z.';
end
$function$;

comment on function memory_plugin._json_time(text, json) is 'A member that is an RFC 3339 time, or MP001.';

create or replace function memory_plugin._json_embedding(p_value json)
returns @extschema:vector@.vector
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_length integer;
begin
    if json_typeof(p_value) = 'null' then
        return null;
    end if;
    if json_typeof(p_value) <> 'array' then
        raise exception using errcode = 'MP001', message = 'embedding must be an array of numbers';
    end if;
    begin
        -- A JSON array of numbers is already a vector literal.
        return p_value::text::@extschema:vector@.vector;
    exception
        -- What vector says of a literal. Anything else, such as that it was moved, is no fault of the client's.
        when data_exception or program_limit_exceeded then
            v_length := json_array_length(p_value);
    end;
    if v_length = 0 then
        return null;
    end if;
    if v_length <> @dimensions@ then
        raise exception using errcode = 'MP002',
            message = format('embedding must have %s dimensions, not %s', @dimensions@, v_length);
    end if;
    raise exception using errcode = 'MP001', message = 'embedding must be an array of finite numbers';
end
$function$;

comment on function memory_plugin._json_embedding(json) is
    'An embedding member as a vector; [] is null. MP001: not finite numbers; MP002: unreadable and of other '
    'dimensions.';

create or replace function memory_plugin._rfc3339(p_time timestamptz)
returns text
language sql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select to_char(p_time at time zone 'UTC', '@time_format@')
$function$;

comment on function memory_plugin._rfc3339(timestamptz) is 'A time as RFC 3339, in UTC, with microseconds.';

create or replace function memory_plugin._json_namespace(p_namespace memory_plugin.memory_namespaces)
returns json
language sql stable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
    select (
        '{"name":' || to_json(p_namespace.name)
        || ',"kind":' || to_json(p_namespace.kind)
        || coalesce(',"expires_at":"' || _rfc3339(p_namespace.expires_at) || '"', '')
        || coalesce(',"metadata":' || p_namespace.metadata::text, '')
        || ',"created_at":"' || _rfc3339(p_namespace.created_at) || '"}'
    )::json
$function$;

comment on function memory_plugin._json_namespace(memory_plugin.memory_namespaces) is
    'A namespace as the contract shows it; absent optional fields are left out.';
