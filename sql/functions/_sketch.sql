create or replace function memory_plugin._sketch_signs(
    p_embedding @extschema:vector@.vector, out high bit varying, out middle bit varying, out low bit varying
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_dimensions constant integer := @extschema:vector@.vector_dims(p_embedding);
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    -- Eight steps of this width keep the most of numbers that are spread normally.
    v_step constant @extschema:vector@.vector
        := array_fill((0.586 / sqrt(c_dimensions))::real, array[c_dimensions])::@extschema:vector@.vector;
    v_twice constant @extschema:vector@.vector := v_step operator(@extschema:vector@.+) v_step;
    v_thrice constant @extschema:vector@.vector := v_twice operator(@extschema:vector@.+) v_step;
    v_above constant bit varying := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_twice);
    v_below constant bit varying := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_twice);
begin
    high := @extschema:vector@.binary_quantize(v_unit);
    middle := v_above | (v_below & ~ high);
    low := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_thrice)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_step) & ~ v_above)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_step) & ~ high)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_thrice) & ~ v_below);
end
$function$;

comment on function memory_plugin._sketch_signs(@extschema:vector@.vector) is
    'An embedding in three bits a number: brought to unit length, each number is put into one of eight steps, from -7 '
    'to 7, which is the sum of three signs (1: plus, 0: minus), that of high four times, that of middle twice, that of '
    'low once.';

create or replace function memory_plugin._sketch(p_embedding @extschema:vector@.vector)
returns bit varying
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
begin
    if @extschema:vector@.vector_dims(p_embedding) < @sketch_dimensions@ then
        return null;
    end if;
    return (select s.high || s.middle || s.low from _sketch_signs(p_embedding) as s);
end
$function$;

comment on function memory_plugin._sketch(@extschema:vector@.vector) is
    'What memory_sketches holds of an embedding, a fifth of the room of half precision: all high signs, all middle '
    'ones, all low ones. Null where there are so few dimensions that a sketch is of no use.';

create or replace function memory_plugin._asked_sketch(
    p_embedding @extschema:vector@.vector,
    out sixteen bit varying, out eight bit varying, out four bit varying, out two bit varying, out one bit varying
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    v_high bit varying;
    v_middle bit varying;
    v_low bit varying;
begin
    select s.high, s.middle, s.low into v_high, v_middle, v_low from _sketch_signs(p_embedding) as s;
    sixteen := v_high || v_high || v_high;
    eight := v_middle || ~ v_high || ~ v_high;
    four := v_low || v_middle || ~ v_high;
    two := ~ v_high || v_low || v_middle;
    one := v_high || ~ v_high || v_low;
end
$function$;

comment on function memory_plugin._asked_sketch(@extschema:vector@.vector) is
    'What sketches are held against, so that five comparisons do for the nine of each sign with each. The high sign of '
    'a row should meet the high, middle and low sign of the question with the weights 16, 8 and 4, its middle one with '
    '8, 4 and 2, its low one with 4, 2 and 1. It meets one sign in each comparison, or its opposite, which takes away: '
    'so these are 15, 8, 4, then 7, 4, 2, then 4, 2, 1.';
