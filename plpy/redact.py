"""Mask credentials in text; plain functions, the same in the server's Python and in tests."""

# Work bound: each pattern starts with a literal or a small set of characters, is tried only where its needle occurs,
# and cannot be entered again inside the run it reads; the searches with a price a match stop at _LIMIT. So time is
# linear in the text. Idempotence: a masked span takes the whole alphanumeric run it ends in, no token pattern looks to
# the right of its match, and no pattern takes a mark for a value; so a mark never brings a new match. Text is handled
# as UTF-8 bytes, whose lower() keeps every position; no pattern cuts a character.

import re
from typing import Any

# No more than this many masks of a kind, nor pairs looked at, in one text; what follows is masked as a whole.
_LIMIT = 2500
# Nor more places looked at that could be a token, and are none.
_LOOKS = 20000
# Nor more flags such as --token, which stand in lines of commands without being credentials.
_FLAGS = 10000
_compiled: "dict[str, re.Pattern[bytes]]" = {}
_compiled_own: "dict[str, re.Pattern[str]]" = {}


def _regex(pattern: str) -> "re.Pattern[bytes]":
    """Compile a pattern written as text for bytes, once, when it is first needed."""
    regex = _compiled.get(pattern)
    if regex is None:
        regex = _compiled[pattern] = re.compile(pattern.encode("ascii"))
    return regex


def _replace(pattern: str, data: bytes, kind: str) -> bytes:
    """Put the mark in the place of each match, behind the groups of the pattern, which are kept."""
    regex = _regex(pattern)
    # split() walks the text in C; a function called for each match would take most of the time.
    parts = regex.split(data, _LIMIT)
    if len(parts) == 1:
        return data
    step = regex.groups + 1
    if len(parts) > _LIMIT * step:
        parts[-1] = _mark("rest") if regex.search(parts[-1]) else parts[-1]
    if regex.groups == 0:
        return _mark(kind).join(parts)
    mark = _mark(kind)
    parts[step - 1 :: step] = [kept + mark for kept in parts[step - 1 :: step]]
    return b"".join(parts)


def _mark(name: str) -> bytes:
    """Give what stands in a credential's place."""
    return b"[redacted:" + name.encode("ascii") + b"]"


def _any_case(word: str) -> str:
    """Give a pattern for an ASCII word in any case; unlike a flag it keeps the search fast."""
    return "".join("[" + c + c.upper() + "]" if c.isalpha() else c for c in word)


def _at_word(literal: str, before: str = "A-Za-z0-9") -> str:
    """Give a pattern for a literal where a word begins: after no such character, or after an escape."""
    # The condition stands behind the literal: a pattern that starts with a literal is searched fastest.
    escapes = rf"|(?<=\\[nrt]{literal})|(?<=%[0-9A-Fa-f][0-9A-Fa-f]{literal})"
    return literal + "(?:(?<![" + before + "]" + literal + ")" + escapes + ")"


_JWT = r"[A-Za-z0-9_-]{8,}\.{1,2}[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_=-]+){0,3}"

# kind, needle, pattern
_TOKENS = (
    ("github_token", b"_eyJ", _at_word("gh", "A-Za-z0-9_-") + "[ousr]_[0-9]{1,20}_eyJ" + _JWT),
    ("jwt", b"eyJ", _at_word("eyJ", "A-Za-z0-9_-") + _JWT),
    ("anthropic_key", b"sk-ant-", r"sk-ant-[A-Za-z0-9_-]{16,}"),
    ("openai_key", b"sk-", _at_word("sk-") + r"(?:[A-Za-z0-9]{20,}|(?:proj|svcacct|admin|None)-[\w-]{16,})[\w-]*"),
    ("aws_access_key", b"AKIA", r"AKIA[A-Z0-9]{12,}[A-Za-z0-9]*"),
    ("aws_access_key", b"ASIA", r"ASIA[A-Z0-9]{16,}[A-Za-z0-9]*"),
    ("aws_bedrock_key", b"ABSK", r"ABSK[A-Za-z0-9+/]{60,}=*"),
    ("google_api_key", b"AIza", r"AIza[A-Za-z0-9_-]{30,}"),
    ("google_api_key", b"AQ.Ab", r"AQ\.Ab[A-Za-z0-9_-]{20,}"),
    ("google_oauth_token", b"ya29.", r"ya29\.[A-Za-z0-9_-]{20,}"),
    ("google_oauth_secret", b"GOCSPX-", r"GOCSPX-[A-Za-z0-9_-]{20,}"),
    ("azure_client_secret", b"Q~", r"Q~(?<=[A-Za-z0-9_~.]{3}[0-9]Q~)[A-Za-z0-9_~.-]{31,}"),
    ("azure_sas", b"sig=", r"(sig=)(?<=[?&]sig=)[A-Za-z0-9%+/]{30,}=*"),
    ("gitlab_token", b"gl", r"gl[a-z]{2,6}-[A-Za-z0-9_-]{20,}(?:\.[0-9a-z]{2,}){0,3}[A-Za-z0-9]*"),
    ("slack_token", b"xox", r"xox[a-z](?:\.xox[a-z])?-[A-Za-z0-9-]{10,}"),
    ("slack_token", b"xapp-", r"xapp-[A-Za-z0-9-]{20,}"),
    ("slack_webhook", b"hooks.slack.com/", r"(hooks\.slack\.com/[a-z]{8,9}/)[A-Za-z0-9+/_-]{20,}"),
    ("discord_webhook", b"/webhooks/", r"(/webhooks/[0-9]{10,20}/)[A-Za-z0-9_-]{20,}"),
    ("telegram_token", b":AA", r"(:)(?<=[0-9]{8}:)AA[A-Za-z0-9_-]{30,}"),
    ("pypi_token", b"pypi-Ag", r"pypi-Ag[A-Za-z0-9_-]{40,}"),
    ("sendgrid_key", b"SG.", r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    ("twilio_key", b"SK", _at_word("SK") + r"[0-9a-f]{32}[A-Za-z0-9]*"),
    ("databricks_token", b"dapi", r"dapi[0-9a-f]{32}[A-Za-z0-9]*(?:-[0-9][A-Za-z0-9]*)?"),
    ("vault_token", b"hv", r"hv[sbr]\.[A-Za-z0-9_-]{24,}"),
    ("terraform_token", b".atlasv1.", r"\.atlasv1\.[A-Za-z0-9_=-]{40,}"),
    ("atlassian_token", b"TT3", r"A(?:TAT|TCT)T3[A-Za-z0-9_=-]{50,}"),
    ("doppler_token", b"dp.", r"dp\.[a-z]{2,5}\.[A-Za-z0-9_.]{40,}"),
    ("docker_token", b"dckr_", r"dckr_[a-z]{3}_[A-Za-z0-9_-]{20,}"),
    ("tailscale_key", b"tskey-", r"tskey-[a-z]{3,10}-[A-Za-z0-9-]{16,}"),
    ("supabase_key", b"sb_secret_", r"sb_secret_[A-Za-z0-9_-]{20,}"),
    ("figma_token", b"figd_", r"figd_[A-Za-z0-9_-]{30,}"),
    ("heroku_key", b"HRKU-", r"HRKU-[A-Za-z0-9_-]{30,}"),
    (
        "private_key",
        b"LS0tLS1CRUdJTi",
        "LS0tLS1CRUdJTi(?:BSU0EgUFJJVkFUR|BQUklWQVRF|BFQyBQUklWQVRF|BPUEVOU1NIIFBSSVZBVE|BFTkNSWVBURUQgUFJJVkFUR)"
        "[A-Za-z0-9+/]{20,}[A-Za-z0-9+/=]*",
    ),
    ("airtable_token", b"pat", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}[A-Za-z0-9]*"),
)

# A known prefix and a long alphanumeric run: kind, least length of the run, prefixes. They share one search for
# their last character, because a search for each of fifty prefixes would take most of the time.
_PREFIXES = (
    "github_token 20 ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
    "npm_token 30 npm_",
    "huggingface_token 30 hf_ api_org_",
    "stripe_key 16 sk_live_ rk_live_ sk_test_ rk_test_ sk_prod_ rk_prod_ whsec_",
    "digitalocean_token 40 dop_v1_ doo_v1_ dor_v1_",
    "shopify_token 30 shpat_ shpca_ shppa_ shpss_",
    "shippo_token 30 shippo_live_ shippo_test_",
    "linear_token 30 lin_api_ lin_oauth_",
    "notion_token 40 ntn_",
    "grafana_token 30 glsa_ glc_",
    "groq_key 40 gsk_",
    "openrouter_key 40 sk-or-v1-",
    "replicate_token 30 r8_",
    "supabase_key 30 sbp_",
    "sentry_token 40 sntrys_ sntryu_",
    "rubygems_token 40 rubygems_",
    "langsmith_key 30 lsv2_pt_ lsv2_sk_",
    "onepassword_token 60 ops_",
    "fly_token 60 fm2_ fm1r_ fm1a_",
    "prefect_token 36 pnu_",
    "xai_key 50 xai-",
    "perplexity_key 40 pplx-",
    "postman_key 20 PMAK-",
    "newrelic_key 24 NRAK-",
    "brevo_key 60 xkeysib-",
    "pulumi_token 40 pul-",
    "age_key 50 AGE-SECRET-KEY-",
)
_by_ending: "dict[bytes, list[tuple[bytes, re.Pattern[bytes], bytes]]]" = {}
for _kind, _least, *_prefixes in map(str.split, _PREFIXES):
    for _prefix in _prefixes:
        _rule = (_prefix.encode("ascii"), _regex("[A-Za-z0-9]{" + _least + ",}[A-Za-z0-9_/+=-]*"), _mark(_kind))
        _by_ending.setdefault(_rule[0][-3:], []).append(_rule)
# A separator behind the end of one of the prefixes, before a run of the least length there is.
_SEPARATORS = [
    separator
    + "(?=[A-Za-z0-9]{16})(?<=(?:"
    + "|".join(ending.decode("ascii") for ending in sorted(_by_ending) if ending.endswith(separator.encode("ascii")))
    + "))"
    for separator in ("_", "-")
]


def _mask_prefixed(data: bytes) -> bytes:
    """Mask the tokens of _PREFIXES."""
    for separator in _SEPARATORS:
        parts: list[bytes] = []
        done = 0
        looks = 0
        regex = _regex(separator)
        found = regex.search(data)
        while found:
            end = after = found.end()
            looks += 1
            for prefix, body, mark in _by_ending[data[end - 3 : end]]:
                token = body.match(data, end) if data.endswith(prefix, done, end) else None
                if token:
                    parts += (data[done : end - len(prefix)], mark)
                    done = after = token.end()
                    break
            if len(parts) > 2 * _LIMIT or looks > _LOOKS:
                if len(parts) > 2 * _LIMIT:
                    parts.pop()
                else:
                    parts.append(data[done:end])
                parts.append(_mark("rest"))
                done = len(data)
                break
            found = regex.search(data, after)
        if parts:
            data = b"".join(parts) + data[done:]
    return data


_PEM_BEGIN = re.compile(rb"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(rb"-----END [A-Z0-9 ]{0,60}-----")
# The headers and the base64 lines of a key that was cut off, after newlines: real, escaped once or several times, of a
# URL, of HTML, of mail that quotes.
_PEM_NEWLINE = rb"(?:\s|\\{1,8}(?:[nrt]|u000[aAdD])|%(?:25){0,3}0[aAdD]|&#(?:1[03]|x[aAdD]);|<br ?/?>|>){0,200}"
_PEM_LINES = re.compile(
    rb"(?:" + _PEM_NEWLINE + rb"[A-Z][A-Za-z-]{3,20}: [^\r\n\\]{1,100}(?=[\r\n\\])){0,4}"
    rb"(?:" + _PEM_NEWLINE + rb"[A-Za-z0-9+/=]{16,})*"
)


def _mask_private_keys(data: bytes) -> bytes:
    """Mask PEM private keys: to the end line, or as far as the lines go where a key was cut off."""
    parts: list[bytes] = []
    done = 0
    begin = _PEM_BEGIN.search(data)
    while begin:
        if len(parts) == 2 * _LIMIT:
            return b"".join(parts) + data[done : begin.start()] + _mark("rest")
        dashes = data.find(b"-----", begin.end())
        near = 0 <= dashes < begin.end() + 65536
        end = _PEM_END.match(data, dashes) if near else None
        parts += (data[done : begin.start()], _mark("private_key"))
        lines = end or _PEM_LINES.match(data, begin.end())
        done = lines.end() if lines else begin.end()
        begin = _PEM_BEGIN.search(data, done)
    return b"".join(parts) + data[done:]


def _not_placeholder(end: str) -> str:
    """Give a lookahead that refuses a mark, a variable, a template slot, or a blanked value before `end`."""
    return r"(?!\[redacted:|\$[A-Z_{(]|\{|\*+" + end + r"|[xX]{3,}" + end + r"|\.\.\.|%[A-Z_]+%)"


# Patterns made of parts, laid out by hand.
# fmt: off

# A port before a path, a query or the end of a Markdown link is no password.
_URL_PASSWORD = r"(?![0-9]{1,5}[/?#,)\]])" + _not_placeholder("@") + r"""[^\s/"'<>`]{1,512}(?=@)"""
_URL = r"""(://[^\s/:@"'<>`\[]{0,256}:)""" + _URL_PASSWORD
# The user was a token.
_URL_MASKED = r"(://\[redacted:[a-z0-9_]{1,40}\]:)" + _URL_PASSWORD
# Two numbers are a user's and a group's, of some other command.
_CURL_USER = r"-(?<=[ \t]-)(?:[sSkLfivgGN]{0,8}u[ =]?|-user[ =])%s(?![0-9]+:[0-9]+(?:\s|\Z))[A-Za-z0-9_.@+-]{1,64}:"
_CURL = "(" + _CURL_USER % """["']?""" + ")" + _not_placeholder(r"\s") + r"""[^\s"'`:/\\<][^\s"'`\\]*"""
_CURL_QUOTED, _CURL_QUOTED_TWICE = (
    "(" + _CURL_USER % quote + ")" + _not_placeholder(quote) + r"[^\r\n\\" + quote + "]{1,256}(?=" + quote + ")"
    for quote in "'\""
)

_B64 = r"[A-Za-z0-9._~+/=:-]"
_SCHEME = "(?:" + "|".join(map(_any_case, ("bearer", "basic", "token", "apikey", "bot"))) + r")[ \t]{1,4}"
_SCHEME += r"""(?:token=\\?["']?|(?!token=))"""
_RANDOM = "(?=" + _B64 + r"{0,200}(?:[0-9+=]|[a-z][A-Z]))"
_ALONE = "(?=" + _B64 + r"""{6,}(?:["'`\\]|[ \t]*(?:\r|\n|\Z)))(?!tokens?\b|auth[a-z]*\b)"""
_AUTHORIZATION = (
    r"""((?:\\?["'])?\s{0,4}[:=,]\s{0,4}(?:[bfr]?\\?["'`])?(?:""" + _SCHEME + "(?:" + _RANDOM + "|" + _ALONE + ")|"
    + _RANDOM + "(?!AWS4-)(?=" + _B64 + "{16})))" + _B64 + "{3,}"
)
_BEARER = r"([ \t]{1,4})" + _RANDOM + _B64 + "{16,}"

# Pairs: a key, perhaps closed by a quote (JSON, a subscript) or by Markdown's stars, a separator, a value.
_CLOSE = r"""(?:\\{0,7}["'`]\]?|\*\*?)?"""
_OPEN = r"""(?:\\{0,7}["'`]|\xe2\x80[\x98\x9c])?"""
_SEPARATOR = r"[ \t]{0,4}(?:=>|:=|={1,3}|:\*{0,2})\s{0,8}"
_ASSIGN = r"(?:[ \t]{0,4}(?::=|=>?(?!=))[ \t]{0,4}|:(?=[!-~])(?![=:>]|//))(?!=)"
_COLON = r"[ \t]{0,4}:\*{0,2}[ \t]{1,4}"
_END = r"""(?=[\s"'`,;&<>()\[\]{}\\]|[.:!?](?:\s|\Z)|\Z)"""
_STEM = "(?:" + "|".join(
    "[" + word[0] + word[0].upper() + "]" + word[1:] + "|" + word.upper()
    for word in "password passwd passphrase pass pwd secret token key credential".split()
) + ")s?"
_WORD = "(?:" + "|".join(map(_any_case, (
    "none null nil undefined true false yes no on off str string text bytes int integer number bool boolean object "
    "any required optional empty unset unknown missing invalid expired hidden masked redacted removed todo tbd "
    "example placeholder latest bearer basic jwt oauth md5 scram plain prompt stdin env file vault"
).split())) + ")"
# Whole values that are none: variables, slots, blanks, bind parameters, names of types and states, and names made
# of the keys' own words (db_password, apiKey).
_BLANK = (
    r"(?:\$[A-Za-z_]+|\$[0-9]{1,2}|\$?\{{1,2}[^{}\n]{1,80}\}{1,2}|<[^<>\n]{1,80}>|%[A-Za-z_]{1,40}%|%s"
    r"|%\([a-z_]{1,40}\)s|\*+|[xX]{3,}|\.{2,}|-+|:[a-z_]{1,40}|\?|" + _WORD
    + r"|(?:[A-Za-z]{1,20}[_-]){0,4}" + _STEM + r"(?:[_-][A-Za-z]{1,20}){0,3}|[a-z]{1,20}(?:Password|Secret|Token|Key))"
)
# Beginnings of code: a call, a subscript, an attribute of what holds settings, a substitution; of a path; of a URL.
_CODE = (
    r"[A-Za-z_][A-Za-z0-9_.]{0,80}(?:\(|\[(?!redacted:))|(?:[A-Za-z_][A-Za-z0-9_]{0,40}\.){1,4}(?:[A-Za-z]{1,20}_){0,3}"
    + _STEM + r"(?![A-Za-z0-9])|[&*]?(?:self|this|os|process|env|config|settings|cfg|args|opts|options|request|req|ctx"
    r"|params|kwargs|props|state|app|secrets|var|local|module|input|credentials|creds|conf|System|Environment|ENV|row"
    r"|data|import|vault)\.[A-Za-z_]|\$[({]|~?/(?:run|var|etc|home|opt|tmp|usr|root|mnt|srv|secrets|Users|workspace"
    r"|app|data)(?![A-Za-z0-9])|[~.]{1,2}/|[a-z][a-z0-9+]{1,12}://"
)
_LEAVE = r"(?!\[redacted:|" + _CODE + "|" + _BLANK + _END + ")"
# What conditions look at; of a value, curly quotes are the end, and other characters with their first byte are not.
_CORE = r"[!#$%*+\-./0-9:=?@A-Z^_a-z|~\xc2-\xdf\x80-\xbf\xe0-\xef\xf0-\xf4]"
_MOST, _OTHER = _CORE.replace(r"\xe0-\xef", r"\xe0\xe1\xe3-\xef"), r"\xe2(?!\x80[\x98-\x9f])"
_RUN = "(?:" + _OTHER + ")?" + _MOST + "+(?:" + _OTHER + _MOST + "+)*"
# A comma, an ampersand, a bracket belong to the value when more of it follows and no next pair begins there.
_VALUE = (
    _RUN + r"(?:(?:[,&;](?![A-Za-z_][A-Za-z0-9_.-]{0,40} ?[=:])|[()\]{}]|\[(?!redacted:))(?=[A-Za-z0-9!#$%*^@])"
    + _RUN + "){0,16}"
)
# Conditions on unquoted values: any word; in prose, one with more than letters or the last of its line; for keys
# and tokens, one that is long and not words, a number or a date.
_NUMBER = "(?!" + _OPEN + "[0-9]{1,3}" + _END + ")"
_ANY = _NUMBER + "(?=" + _OPEN + _CORE + "{3})"
_MORE = (
    _NUMBER + "(?=" + _OPEN + "(?:" + _CORE + "{0,40}[0-9!@#$%^*+=~]|" + _CORE + r"{3,200}[ \t]*(?:\r|\n|\Z)))"
)
_NO_DATE = "(?!" + _OPEN + "[0-9:.,TZ+/-]{1,30}" + _END + ")"
_LONG = "(?=" + _OPEN + _CORE + "{8})(?=" + _OPEN + "(?:" + _CORE + "{0,40}[0-9]|[A-Za-z+/=-]{24}))" + _NO_DATE


def _quoted(separator: str, least: int) -> str:
    """Give the pattern of what follows a key up to a quoted value of at least so many characters, and that value."""
    start = "(" + _CLOSE + "(?:" + separator + r""")[bBfFrRuU@]?(\\{0,7}["']|`))"""
    prose = "[A-Z]?[a-z]{1,12} (?:[a-z]{1,12} ){0,6}" + _STEM + r"\b"
    refused = r"(?!\2\2|\[redacted:|(?:[A-Z][a-z]+ )?" + _BLANK + r"\2|\$[({]|" + prose + ")"
    # Up to the first closing quote: runs without any sign that could be it, then one such sign that is not.
    # A group in a lookahead gives nothing back.
    run, sign = r"""(?=([^\r\n"'`\\]{0,256}))""", r"""(?!(?<!\\)\2)["'`\\]"""
    return start + refused + rf"[^\r\n]{{{least}}}{run}\3(?:(?:{sign}|\2\2){run}\4){{0,16}}(?=(?<!\\)\2)"


def _tripled(separator: str, least: int) -> str:
    """Give the same for a value between triple quotes, which may take several lines."""
    start = "(" + _CLOSE + "(?:" + separator + r""")[bBfFrRuU]{0,2}((\\{0,7}["'])\3\3))"""
    run, sign = r"""(?=([^"'`\\]{0,256}))""", r"""(?!\2)["'`\\]"""
    refused = r"(?!\s*(?:\[redacted:|" + _BLANK + r"\s*\2))"
    return start + refused + rf"(?:(?!\2)[\s\S]){{{least}}}{run}\4(?:{sign}{run}\5){{0,32}}(?=\2)"


def _bare(assigned: str, said: str) -> str:
    """Give the same for an unquoted value, under a condition for `key=value` and one for `key: value`."""
    return "(" + _CLOSE + "(?:" + _ASSIGN + assigned + "|" + _COLON + said + ")" + _OPEN + ")" + _LEAVE + _VALUE


_NO_NAME = "(?![A-Z_]{2,40}" + _END + ")"
_ATTRIBUTE = r"""[ \t][A-Za-z:-]{1,20}=["']"""
_ELEMENT = "((?:" + _ATTRIBUTE + r"[^<>\r\n]{0,100})?>)" + _LEAVE + r"[^<>\s]{1,200}(?=</)"
_FLAG = "-(?:passw(?:or)?d|token|secret|key)(?=[ \\t]{1,4}[^-\\s])"
_FLAGGED = r"([ \t]{1,4}" + _OPEN + ")" + _MORE + _LEAVE + _NO_NAME + _VALUE
# "password 'x'" is SQL, "the password is 'x'" is prose. A bare value said in prose, in a table, or after so short a
# word as pw must mix letters and digits and be no method's name.
_SAID = r"[ \t](?:(?:is|was|to)[ \t]|(?='))"
_METHODS = "sha md pbkdf argon base utf aes oauth rsa ed scrypt bcrypt tls pkcs ldap hs rs es ec ipv gpt"
_MIXED = (
    "(?=" + _OPEN + _CORE + "{6})(?=" + _OPEN + _CORE + "{0,40}[A-Za-z])(?=" + _OPEN + _CORE + "{0,40}[0-9])" + _NO_DATE
    + "(?!" + _OPEN + "(?:" + "|".join(map(_any_case, _METHODS.split())) + ")[0-9])"
)
_SPOKEN = r"([ \t](?:is|was|to|\|)[ \t]" + _MIXED + _OPEN + ")" + _LEAVE + _VALUE
# A line of YAML's block, by itself.
_BLOCK = r"(:[ \t]{1,4}[|>][+-]?[ \t]{0,4}\r?\n[ \t]{1,40})" + _LEAVE + r"(?=(\S{1,512}))\2(?=[ \t]{0,40}(?:\r|\n|\Z))"
_NAME = r"(?!\[redacted:)\S{1,255}"
_NETRC = (
    r"(machine(?<![^\r\n]machine)\s{1,40}" + _NAME + r"\s{1,40}login\s{1,40}" + _NAME + r"\s{1,40}password\s{1,40})"
    + _LEAVE + r"\S+"
)
_IN_LINES = (
    ("url_password", b"://", _URL),
    ("url_password", b"://[redacted:", _URL_MASKED),
    ("password", b"curl", _CURL_QUOTED),
    ("password", b"curl", _CURL_QUOTED_TWICE),
    ("password", b"curl", _CURL),
    ("password", b"machine ", _NETRC),
)
# What may begin a value behind a key; its first character is looked at first.
_FOLLOWED = (
    r"""(?=[\\"'`*=: \t>])(?=(?:\\{0,7}["'`]\]?|\*\*?)?(?:[ \t]{0,4}[=:]|>)|[ \t](?:(?:is|was|to|\|)[ \t]|["'`])|"""
    + _ATTRIBUTE + ")"
)
# Which keys are credentials: api_key, auth-key, AccessKey, account, private, signing, master, service, encryption.
_KEY_OF = "(?<=[ihstegrn_-]key)(?:" + "|".join(
    "(?<=(?:" + endings + ")" + joint + "key)"
    for endings in ("api", "auth|cess|ount|vate|ning|ster|vice", "yption")
    for joint in ("", "[_-]")
) + ")"
_PASSWORD = (
    _tripled(_SEPARATOR, 1), _quoted(_SEPARATOR + "|" + _SAID, 1), _bare(_ANY, _MORE), _ELEMENT, _SPOKEN, _BLOCK
)
_SECRET = (_tripled(_SEPARATOR, 6), _quoted(_SEPARATOR, 6), _bare(_ANY, _LONG), _ELEMENT, _SPOKEN, _BLOCK)
_KEY = (_tripled(_SEPARATOR, 6), _quoted(_SEPARATOR, 6), _bare(_LONG, _LONG), _ELEMENT, _SPOKEN, _BLOCK)
_SHORT = (_tripled(_SEPARATOR, 1), _quoted(_SEPARATOR, 1), _bare(_ANY, _MIXED))
# The shell's PWD is a folder.
_FOLDER = "(?<![a-z]pwd)(?!(?<=[$]pwd):)" + r"""(?![ \t]{0,4}[=:][ \t]{0,4}["']?/[a-z0-9_./-]{0,200}""" + _END + ")"
# kind, needle and key in the lower-cased text (the key starts with the needle), patterns of what follows the key
_KEYED = (
    ("authorization", b"authorization", "authorization", (_AUTHORIZATION,)),
    ("token", b"bearer", r"bearer(?=[ \t])", (_BEARER,)),
    ("password", b"pass", "pass(?:w(?:or)?d|phrase|code)" + _FOLLOWED, _PASSWORD),
    ("password", b"pwd", "pwd" + _FOLLOWED + _FOLDER, _PASSWORD),
    ("password", b"pass", "pass" + _FOLLOWED + "(?<![a-z]pass)", _SHORT),
    ("password", b"pw", "pw" + _FOLLOWED + "(?<![a-z0-9]pw)", _SHORT),
    ("password", b"identified by", r"identified by(?=[ \t])", (_quoted(r"[ \t]{1,4}", 1),)),
    ("secret", b"secret", "secret(?:[_-]?(?:access[_-]?)?key(?:_base)?)?" + _FOLLOWED, _SECRET),
    ("token", b"token", "token" + _FOLLOWED, _KEY),
    ("api_key", b"key", "key" + _KEY_OF + _FOLLOWED, _KEY),
)

# fmt: on


def _mask_keyed(
    data: bytes, low: bytes, key: str, patterns: "tuple[str, ...]", mark: bytes, looks: int = _LIMIT
) -> bytes:
    """Mask the values that follow a key."""
    parts: list[bytes] = []
    done = 0
    seen = 0
    regex = _regex(key)
    found = regex.search(low)
    while found:
        seen += 1
        if seen > looks or len(parts) >= 2 * _LIMIT:
            parts += (data[done : found.start()], _mark("rest"))
            done = len(data)
            break
        after = found.end()
        for pattern in patterns:
            value = _regex(pattern).match(data, after)
            if value:
                parts += (data[done : value.end(1)], mark)
                done = after = value.end()
                break
        found = regex.search(low, after)
    return b"".join(parts) + data[done:] if parts else data


# What an operator's own patterns may cost in one text, all of them together: a place looked at, and parts of varying
# length that are read there.
_WORK = 15000
_PART = 4
_MARK = re.compile(r"\[redacted:[a-z0-9_]{1,40}\]")
_LONGEST_MARK = 60


def _mask_own(content: str, patterns: "list[tuple[str, str, int, str]]") -> str:
    """Mask what the patterns match: of each its kind, a needle, the needle's place in it, and its expression."""
    # A mark ends the text on both sides of it: so masking again finds nothing new.
    work = _WORK
    for kind, needle, before, expression in patterns:
        place = content.find(needle)
        if place < 0:
            continue
        regex = _compiled_own.get(expression)
        if regex is None:
            if len(_compiled_own) > 1000:
                _compiled_own.clear()
            regex = _compiled_own[expression] = re.compile(expression, re.ASCII)
        cost = 1 + _PART * expression.count("(?=")
        parts: list[str] = []
        done = 0
        mark = _MARK.search(content)
        while place >= 0:
            start = place - before
            if mark and mark.end() <= start:
                mark = _MARK.search(content, max(mark.end(), start - _LONGEST_MARK))
            if mark and mark.start() <= place < mark.end():
                place = content.find(needle, mark.end())
                continue
            if work < cost:
                parts += (content[done : max(start, done)], "[redacted:rest]")
                done = len(content)
                break
            work -= cost
            found = None
            if start >= done and not (mark and mark.start() < place):
                found = regex.match(content, start, mark.start() if mark else len(content))
            if found:
                parts += (content[done:start], f"[redacted:{kind}]")
                done = found.end()
                place = content.find(needle, done)
            else:
                place = content.find(needle, place + 1)
        if parts:
            content = "".join(parts) + content[done:]
    return content


def redact(content: str, extra: "list[tuple[str, str, int, str]]" = []) -> str:  # noqa: B006 - never changed
    """Mask the credentials in a text, each as [redacted:kind]; a text without any comes back as it was."""
    own = _mask_own(content, extra) if extra else content
    data = original = own.encode("utf-8", "surrogatepass")
    if b"PRIVATE KEY" in data:
        data = _mask_private_keys(data)
    for kind, needle, pattern in _TOKENS:
        if needle in data:
            data = _replace(pattern, data, kind)
    data = _mask_prefixed(data)
    for kind, needle, pattern in _IN_LINES:
        if needle in data:
            data = _replace(pattern, data, kind)
    if b"--" in data:
        data = _mask_keyed(data, data, _FLAG, (_FLAGGED,), _mark("secret"), _FLAGS)
    low = data.lower()
    for kind, needle, key, patterns in _KEYED:
        if needle in low:
            masked = _mask_keyed(data, low, key, patterns, _mark(kind))
            if masked is not data:
                data = masked
                low = data.lower()
    return own if data == original else data.decode("utf-8", "surrogatepass")


def redact_in_database(plpy: Any, kept: "dict[str, Any]", content: str) -> str:
    """Mask the credentials in a text, those of the table redaction_patterns too; `kept` lasts as long as a session."""
    if "patterns" not in kept:
        kept["patterns"] = plpy.prepare(
            "select p.kind, p.needle, p.before, p.expression from memory_plugin.redaction_patterns as p "
            "where p.enabled order by p.kind, p.pattern"
        )
    rows = plpy.execute(kept["patterns"])
    return redact(content, [(row["kind"], row["needle"], row["before"], row["expression"]) for row in rows])
