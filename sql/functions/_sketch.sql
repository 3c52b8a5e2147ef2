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

create or replace function memory_plugin._asked_signs(
    p_embedding @extschema:vector@.vector,
    out eight bit varying, out four bit varying, out two bit varying, out one bit varying
)
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, memory_plugin, pg_temp
as $function$
declare
    c_dimensions constant integer := @extschema:vector@.vector_dims(p_embedding);
    v_unit constant @extschema:vector@.vector := @extschema:vector@.l2_normalize(p_embedding);
    -- Of numbers spread normally, sixteen steps of this width lose the least, as halves and quarters count too.
    v_step constant @extschema:vector@.vector
        := array_fill((0.29 / sqrt(c_dimensions))::real, array[c_dimensions])::@extschema:vector@.vector;
    v_above @extschema:vector@.vector := v_unit;
    v_sign bit varying;
    v_half bit varying;
    v_quarter bit varying;
    v_eighth bit varying;
begin
    for i in 1 .. 7 loop
        v_above := v_above operator(@extschema:vector@.+) v_step;
    end loop;
    -- How many of the fifteen limits a number is above, digit by digit.
    for i in -7 .. 7 loop
        v_sign := @extschema:vector@.binary_quantize(v_above);
        v_eighth := coalesce(v_eighth # v_sign, v_sign);
        if i % 2 = 0 then
            v_quarter := coalesce(v_quarter # v_sign, v_sign);
        end if;
        if i % 4 = 0 then
            v_half := coalesce(v_half # v_sign, v_sign);
        end if;
        if i = 0 then
            eight := v_sign;
        end if;
        v_above := v_above operator(@extschema:vector@.-) v_step;
    end loop;
    four := v_half || ~ eight || ~ eight;
    two := v_quarter || v_half || ~ eight;
    one := v_eighth || v_quarter || v_half;
    eight := eight || eight || eight;
end
$function$;

comment on function memory_plugin._asked_signs(@extschema:vector@.vector) is
    'What sketches are held against. A number of the question is put into one of sixteen steps, from -15 to 15: the '
    'sum of four signs that count 8, 4, 2 and 1. The high sign of a row should count as much as that, its middle one '
    'half, its low one a quarter, each rounded to an odd number: which the same signs give, each in the place behind, '
    'and in the places that are left free the opposite of the first. So four comparisons do for all.';
