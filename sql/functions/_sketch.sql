create or replace function memory_plugin._sketch_of(
    p_embedding @extschema:vector@.vector, out high bit varying, out middle bit varying, out low bit varying
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_dimensions constant integer := @extschema:vector@.vector_dims(p_embedding);
    v_unit @extschema:vector@.vector;
    v_step @extschema:vector@.vector;
    v_twice @extschema:vector@.vector;
    v_thrice @extschema:vector@.vector;
    v_above bit varying;
    v_below bit varying;
begin
    if c_dimensions is null or c_dimensions < @sketch_dimensions@ then
        return;
    end if;
    v_unit := @extschema:vector@.l2_normalize(p_embedding);
    -- Eight steps of this width keep the most of numbers that are spread normally.
    v_step := array_fill((0.586 / sqrt(c_dimensions))::real, array[c_dimensions])::@extschema:vector@.vector;
    v_twice := v_step operator(@extschema:vector@.+) v_step;
    v_thrice := v_twice operator(@extschema:vector@.+) v_step;
    v_above := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_twice);
    v_below := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_twice);
    high := @extschema:vector@.binary_quantize(v_unit);
    middle := v_above | (v_below & ~ high);
    low := @extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_thrice)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.-) v_step) & ~ v_above)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_step) & ~ high)
        | (@extschema:vector@.binary_quantize(v_unit operator(@extschema:vector@.+) v_thrice) & ~ v_below);
end
$function$;

comment on function memory_plugin._sketch_of(@extschema:vector@.vector) is
    'An embedding in three bits a number, a fifth of the room of half precision: brought to unit length, each number '
    'is put into one of eight steps, from -7 to 7, which is the sum of three signs (1: plus, 0: minus), that of high '
    'four times, that of middle twice, that of low once. Null where there are so few dimensions that a sketch is of no '
    'use.';
