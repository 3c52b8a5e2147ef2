create or replace function memory_plugin._sketch(p_embedding @extschema:vector@.vector)
returns bit varying
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_dimensions constant integer := @extschema:vector@.vector_dims(p_embedding);
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    v_step @extschema:vector@.vector;
    v_signs bit varying;
begin
    if c_dimensions < @sketch_dimensions@ then
        return null;
    end if;
    -- Four steps of this width keep the most of numbers that are spread normally.
    v_step := array_fill((0.996 / sqrt(c_dimensions))::real, array[c_dimensions])::@extschema:vector@.vector;
    v_signs := @extschema:vector@.binary_quantize(v_unit);
    return v_signs || v_signs || (
        @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_step)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_step) & ~ v_signs)
    );
end
$function$;

comment on function memory_plugin._sketch(@extschema:vector@.vector) is
    'An embedding in three bits a number, a fifth of the room of half precision: brought to unit length, each number '
    'is put into one of four steps, -3, -1, 1 and 3, which is the sum of three signs (1: plus, 0: minus). The first '
    'two are the sign of the number; all first signs come first. Null where there are so few dimensions that a sketch '
    'is of no use.';

create or replace function memory_plugin._question_sketch(
    p_embedding @extschema:vector@.vector, out high bit varying, out middle bit varying, out low bit varying
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_dimensions constant integer := @extschema:vector@.vector_dims(p_embedding);
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    v_step constant @extschema:vector@.vector
        := array_fill((0.586 / sqrt(c_dimensions))::real, array[c_dimensions])::@extschema:vector@.vector;
    v_above @extschema:vector@.vector[] := '{}';
    v_below @extschema:vector@.vector[] := '{}';
begin
    for i in 1..3 loop
        v_above[i] := coalesce(v_above[i - 1], v_unit) operator(@extschema:vector@.-) v_step;
        v_below[i] := coalesce(v_below[i - 1], v_unit) operator(@extschema:vector@.+) v_step;
    end loop;
    high := @extschema:vector@.binary_quantize(v_unit);
    middle := @extschema:vector@.binary_quantize(v_above[2])
        | (@extschema:vector@.binary_quantize(v_below[2]) & ~ high);
    low := @extschema:vector@.binary_quantize(v_above[3])
        | (@extschema:vector@.binary_quantize(v_above[1]) & ~ @extschema:vector@.binary_quantize(v_above[2]))
        | (@extschema:vector@.binary_quantize(v_below[1]) & ~ high)
        | (@extschema:vector@.binary_quantize(v_below[3]) & ~ @extschema:vector@.binary_quantize(v_below[2]));
    high := high || high || high;
    middle := middle || middle || middle;
    low := low || low || low;
end
$function$;

comment on function memory_plugin._question_sketch(@extschema:vector@.vector) is
    'The sketch of a question, in eight steps from -7 to 7: four times the sign of high, twice that of middle, once '
    'that of low; each three times, as a sketch has three signs.';
