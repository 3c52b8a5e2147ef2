import ast
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from memory_plugin.installer.plpython import build
from memory_plugin.plpy import redact as module
from memory_plugin.plpy.redact import redact
from redact_cases import (
    CLEAN,
    HEX,
    OTHERS,
    PAIRS,
    PHRASES,
    PROSE,
    QUOTED,
    SECRETS,
    TOKEN_CONTEXTS,
    TOKENS,
    chars,
    jwt,
    pem,
)

MIB = 1 << 20


def _masked() -> list[tuple[str, str]]:
    """Return texts with a credential, and what each must become."""
    cases = [
        (context.format(token), context.format(f"[redacted:{kind}]"))
        for kind, token in TOKENS
        for context in TOKEN_CONTEXTS
    ]
    cases += [
        (text.format(secret), text.format(f"[redacted:{kind}]"))
        for kind, text in PAIRS
        for secret in SECRETS
        # A URL's password holds no slash and no "#"; a bare word ends where a bare word ends.
        if not (kind == "url_password" and set("/#") & set(secret))
    ]
    cases += [
        (text.format(phrase), text.format(f"[redacted:{kind}]"))
        for kind, text in QUOTED
        for phrase in PHRASES
        if len(phrase.encode()) > 8
    ]
    return cases + [(text.format(secret), text.format(f"[redacted:{kind}]")) for kind, text, secret in OTHERS]


MASKED = _masked()


@pytest.mark.parametrize(("text", "expected"), MASKED)
def test_a_credential_is_masked_and_nothing_around_it(text: str, expected: str) -> None:
    if "private_key" in expected:  # two keys in one place become two marks
        assert set(redact(text).replace("[redacted:private_key]", "").split()) == set(
            expected.replace("[redacted:private_key]", "").split()
        )
    else:
        assert redact(text) == expected


@pytest.mark.parametrize("text", CLEAN)
def test_text_without_a_credential_stays_as_it_is(text: str) -> None:
    assert redact(text) == text
    assert redact(f"He said: {text}\nand left.") == f"He said: {text}\nand left."


@pytest.mark.parametrize("text", [text for text, _ in MASKED[::7]] + CLEAN[::7])
def test_masking_twice_is_masking_once(text: str) -> None:
    for whole in (text, text * 2, text + "\n" + text, f"password={text}", f'{{"token": "{text}"}}', f"token: {text};"):
        once = redact(whole)
        assert redact(once) == once


_PIECES = [
    *(token for _, token in TOKENS),
    *(token[: len(token) // 2] for _, token in TOKENS),
    *(secret for _, _, secret in OTHERS),
    *"password Password PASS pwd secret secret_key token api_key accessKey Authorization Bearer Basic curl".split(),
    *' -u | --password |://bob:|https://|?sig=|\\n|\\"|%3D|\n|\t|  '.split("|"),
    *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "[redacted:token]", "[redacted:rest]"),
    *" = : := => == ' \" ` @ , ; & ( ) [ ] { } < > </ / \\ . _ - $ ${ * ? ! # ~ + is".split(" "),
    *"hunter2 None x abc ABC 0 1234 é 日本 😀 was to".split(),
    HEX,
]
_CREDENTIAL_LIKE = st.lists(st.sampled_from(_PIECES), max_size=14).map("".join)


@settings(max_examples=600, deadline=None)
@given(_CREDENTIAL_LIKE)
@example("password=x" + TOKENS[0][1] + "!tail")
@example("sk-" + pem("PRIVATE KEY", lines=1) + TOKENS[0][1])
@example('Authorization: Token token="p4ssw0rd12345", email="x"')
@example("DB_PASSWORD=secret://prod/db")
@example("pass=pass://vault/item")
@example("machine a login b password <machine a login b password **abcdef123456>: ")
@example('password = """x')
def test_pieces_of_credentials_in_any_order_are_masked_once_for_all(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@settings(max_examples=500, deadline=None)
@given(st.text())
def test_any_text_is_taken_and_masked_once_for_all(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([word for line in PROSE for word in line.split() if word.isalpha()])).map(" ".join))
def test_words_alone_are_never_masked(text: str) -> None:
    assert redact(text) == text


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(TOKENS),
    st.text(st.characters(exclude_categories=["L", "N", "Cs"], exclude_characters="_-./+=%"), max_size=9),
)
def test_a_token_is_masked_between_any_signs(token: tuple[str, str], signs: str) -> None:
    assert token[1] not in redact(signs + token[1] + signs)


@pytest.mark.parametrize("alphabet", [HEX, HEX.upper()])
@pytest.mark.parametrize("length", [7, 8, 12, 32, 40, 56, 64, 96, 128])
def test_a_hash_of_any_length_stays(alphabet: str, length: int) -> None:
    for _ in range(50):
        digest = chars(alphabet, length)
        assert redact(f"commit {digest} and {digest}.") == f"commit {digest} and {digest}."


@pytest.mark.parametrize("count", [module._LIMIT, module._LIMIT + 1, 3 * module._LIMIT])
@pytest.mark.parametrize(
    "piece", ["pwd=hunter2x\n", "x://a:bcd@h ", TOKENS[0][1] + " ", TOKENS[15][1] + "\n", pem() + "\n"]
)
def test_past_the_limit_the_rest_is_masked_as_a_whole(piece: str, count: int) -> None:
    masked = redact(piece * count + "the end")
    assert piece.strip() not in masked
    assert masked.endswith("[redacted:rest]" if count > module._LIMIT else "the end")
    assert redact(masked) == masked


def test_past_so_many_flags_looked_at_the_rest_is_masked_as_a_whole() -> None:
    flags = "run --token file\n" * module._FLAGS
    kept = redact(flags + "the end")
    assert kept == flags + "the end"
    masked = redact(flags + "run --token file, the end")
    assert masked == flags + "run -[redacted:rest]"
    assert redact(masked) == masked


def test_prose_past_many_credentials_is_kept() -> None:
    text = "password of the day: see the vault, token ring\n" * 20_000
    assert redact(text) == text


# Each is repeated to the full size: what starts a pattern often, what a pattern runs over in vain, what it refuses.
_ADVERSARIAL = [
    *"a p s - _ : = @ . [ \\ \n é 😀 sk- SG. SG.aaaaaaaaaaaaaaaaaaaa ghp_ xoxb- pat AKIA hv gl".split(" "),
    *"eyJ eyJaaaaaaaa eyJaaaaaaaa. ghs_1_eyJ key key= api_key= token= token=a password password= pwd=None,".split(),
    *"pwd=ab; secret_key: pass= passwd=' ://a: ://a:b ://a:b@ -----BEGIN MIIE\n <password> password>a".split(" "),
    *(
        "bearer ",
        "authorization: ",
        "authorization: bearer a",
        " --token a",
        " --passwd\t",
        "--token '",
        " -u a",
        "curl -u a:b ",
        "curl -u 'a:b",
        'password="""',
        "password='''a",
        "password=€",
        "password=語",
        'password a="',
        "password: |\n a ",
        "machine a login b ",
        "password \t \t",
    ),
    *("token=\"token='token=\\\"token=\\'token=`", "password='" + "a" * 600 + "\n", "password='a " + "b " * 8),
    *("password=" + "a," * 40, "password=a.b.c.d.e", "password=a_b_c_d_e", "A" * 16 + "_" + "a" * 16, "hp_" + "a" * 17),
    *("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\n" + "A" * 64 + "\n", jwt() + "x"),
    *(token + " " for _, token in TOKENS[:16]),
]


def _seconds(text: str) -> float:
    start = time.process_time()
    redact(text)
    return time.process_time() - start


@pytest.mark.parametrize("piece", _ADVERSARIAL)
def test_time_grows_with_the_length_of_the_text_and_not_with_its_square(piece: str) -> None:
    small, large = (piece * (size // len(piece.encode())) for size in (MIB // 16, MIB))
    redact(small)
    # Sixteen times the text takes about sixteen times as long; if it grew with the square, 256 times.
    assert _seconds(large) < 64 * max(_seconds(small), 0.005)


def test_the_source_fits_into_a_function_of_the_oldest_server_python() -> None:
    source = Path(module.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 9))
    build("redact")


@pytest.mark.servers("full")
def test_the_database_masks_as_the_module_does(conn: psycopg.Connection) -> None:
    texts = [*(text for text, _ in MASKED), *CLEAN, "", "é" * 1000, "pwd=hunter2x\n" * (module._LIMIT + 1)]
    rows = conn.execute(
        "select memory_plugin.redact(text) from unnest(%s::text[]) with ordinality as _ (text, place) order by place",
        [texts],
    ).fetchall()
    assert [masked for (masked,) in rows] == [redact(text) for text in texts]


@pytest.mark.servers("full")
def test_the_database_masks_a_text_of_the_largest_size(conn: psycopg.Connection) -> None:
    text = ("password=hunter2x and prose about it; " * MIB)[:MIB]
    assert conn.execute("select memory_plugin.redact(%s)", [text]).fetchone() == (redact(text),)


@pytest.mark.servers("full")
def test_an_open_session_follows_an_upgrade_of_the_function(conn: psycopg.Connection, database: str) -> None:
    assert conn.execute("select memory_plugin.redact('pwd=hunter2x')").fetchone() == ("pwd=[redacted:password]",)
    with psycopg.connect(database, autocommit=True) as other:
        other.execute(build("redact").replace("[redacted:", "[gone:").encode())
    assert conn.execute("select memory_plugin.redact('pwd=hunter2x')").fetchone() == ("pwd=[gone:password]",)


@pytest.mark.servers("full")
def test_a_member_of_the_api_role_may_mask_and_a_stranger_may_not(
    conn: psycopg.Connection, new_role: Callable[..., str]
) -> None:
    member, stranger = new_role(), new_role()
    conn.execute(f'grant memory_plugin_api to "{member}"'.encode())
    conn.execute(f'grant usage on schema memory_plugin to "{stranger}"'.encode())
    conn.execute("set search_path = pg_temp")
    conn.execute(f'set role "{member}"'.encode())
    assert conn.execute("select memory_plugin.redact('pwd=hunter2x')").fetchone() == ("pwd=[redacted:password]",)
    conn.execute(f'set role "{stranger}"'.encode())
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select memory_plugin.redact('pwd=hunter2x')")


@pytest.mark.servers("full")
def test_null_gives_null(conn: psycopg.Connection) -> None:
    assert conn.execute("select memory_plugin.redact(null)").fetchone() == (None,)


@pytest.mark.servers("full")
def test_the_database_knows_the_function_as_reading_only_and_its_path_as_pinned(conn: psycopg.Connection) -> None:
    row = conn.execute(
        "select provolatile, proparallel, proisstrict, prosecdef, proconfig from pg_proc"
        " where oid = 'memory_plugin.redact(text)'::regprocedure"
    ).fetchone()
    assert row == ("s", "s", True, True, ["search_path=pg_catalog, memory_plugin, pg_temp", "row_security=on"])


@pytest.mark.servers("full")
def test_health_lists_redaction_where_it_is(conn: psycopg.Connection) -> None:
    assert conn.execute("select 'redaction' = any (capabilities) from memory_plugin.health()").fetchone() == (True,)


@pytest.mark.servers("embedded")
def test_without_plpython_there_is_no_redact_and_health_does_not_list_it(conn: psycopg.Connection) -> None:
    assert conn.execute("select to_regprocedure('memory_plugin.redact(text)') is null").fetchone() == (True,)
    assert conn.execute("select 'redaction' = any (capabilities) from memory_plugin.health()").fetchone() == (False,)
