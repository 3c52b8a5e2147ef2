"""Texts with and without credentials; every credential is put together here, so that no scanner takes one for real."""

import base64
import random
import re

_CHANCE = random.Random(20)
HEX = "0123456789abcdef"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
URLSAFE = ALNUM + "-_"
B64 = ALNUM + "+/"


def chars(alphabet: str, length: int) -> str:
    """Return so many characters by chance, the same in every run, with a letter or digit at both ends."""
    ends = [character for character in alphabet if character.isalnum()]
    return _CHANCE.choice(ends) + "".join(_CHANCE.choices(alphabet, k=length - 2)) + _CHANCE.choice(ends)


def jwt() -> str:
    """Return a token of three base64url parts."""
    head, body = (
        base64.urlsafe_b64encode(text).decode().rstrip("=")
        for text in (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"1234567890","name":"Ann"}')
    )
    return f"{head}.{body}.{chars(URLSAFE, 43)}"


def pem(kind: str = "RSA PRIVATE KEY", lines: int = 6, *, end: bool = True, newline: str = "\n") -> str:
    """Return an armoured key; without `end` it is cut off."""
    body = [chars(B64, 64) for _ in range(lines)]
    return newline.join([f"-----BEGIN {kind}-----", *body, *([f"-----END {kind}-----"] if end else [])])


# kind, prefix, alphabet, lengths of the issuers' published formats
_PREFIXED = [
    ("anthropic_key", "sk-ant-" + "api03-", URLSAFE, 95),
    ("anthropic_key", "sk-ant-" + "admin01-", URLSAFE, 95),
    ("anthropic_key", "sk-ant-" + "oat01-", URLSAFE, 95),
    ("openrouter_key", "sk-or-" + "v1-", HEX, 64),
    ("openai_key", "sk-" + "proj-", URLSAFE, 156),
    ("openai_key", "sk-" + "svcacct-", URLSAFE, 156),
    ("openai_key", "sk-", ALNUM, 48),
    ("aws_access_key", "AK" + "IA", UPPER, 16),
    ("aws_access_key", "AS" + "IA", UPPER, 16),
    ("google_api_key", "AI" + "za", URLSAFE, 35),
    ("google_api_key", "AQ." + "Ab", URLSAFE, 48),
    ("google_oauth_token", "ya" + "29.", URLSAFE, 120),
    ("google_oauth_secret", "GOC" + "SPX-", URLSAFE, 28),
    *(("github_token", f"gh{letter}_", ALNUM, 36) for letter in "pousr"),
    ("github_token", "github_" + "pat_", ALNUM + "_", 82),
    *(
        ("gitlab_token", f"gl{name}-", URLSAFE, 20)
        for name in ("pat", "dt", "rt", "ptt", "ft", "imt", "soat", "ffct", "cbt")
    ),
    *(("slack_token", f"xox{letter}-", "0123456789-", 50) for letter in "abpros"),
    ("slack_token", "xa" + "pp-1-", UPPER + "-", 80),
    *(("stripe_key", f"{kind}_{mode}_", ALNUM, 24) for kind in ("sk", "rk") for mode in ("live", "test")),
    ("stripe_key", "wh" + "sec_", ALNUM, 32),
    ("huggingface_token", "h" + "f_", ALNUM[:52], 34),
    ("npm_token", "np" + "m_", ALNUM, 36),
    ("pypi_token", "py" + "pi-AgEIcHlwaS5vcmc", URLSAFE, 120),
    ("twilio_key", "S" + "K", HEX, 32),
    *(("digitalocean_token", f"do{letter}_v1_", HEX, 64) for letter in "opr"),
    ("databricks_token", "da" + "pi", HEX, 32),
    ("vault_token", "hv" + "s.", URLSAFE, 96),
    ("vault_token", "hv" + "b.", URLSAFE, 140),
    ("docker_token", "dckr_" + "pat_", URLSAFE, 27),
    *(("shopify_token", f"shp{name}_", HEX, 32) for name in ("at", "ca", "pa", "ss")),
    ("linear_token", "lin_" + "api_", ALNUM, 40),
    ("notion_token", "nt" + "n_", ALNUM, 46),
    ("grafana_token", "gl" + "sa_", ALNUM, 32),
    ("groq_key", "gs" + "k_", ALNUM, 52),
    ("replicate_token", "r" + "8_", ALNUM, 37),
    ("supabase_key", "sb" + "p_", HEX, 40),
    ("supabase_key", "sb_" + "secret_", URLSAFE, 31),
    ("sentry_token", "sntr" + "yu_", HEX, 64),
    ("rubygems_token", "ruby" + "gems_", HEX, 48),
    ("langsmith_key", "lsv2_" + "pt_", HEX, 32),
    ("xai_key", "xa" + "i-", ALNUM, 80),
    ("perplexity_key", "pp" + "lx-", ALNUM, 48),
    ("newrelic_key", "NR" + "AK-", UPPER, 27),
    ("brevo_key", "xkey" + "sib-", HEX, 64),
    ("pulumi_token", "pu" + "l-", HEX, 40),
    ("age_key", "AGE-SECRET-" + "KEY-1", UPPER, 58),
    ("atlassian_token", "ATA" + "TT3", URLSAFE, 186),
    ("doppler_token", "dp." + "pt.", ALNUM, 43),
    ("tailscale_key", "tskey-" + "auth-", ALNUM, 32),
    ("aws_bedrock_key", "AB" + "SK", B64, 128),
    ("huggingface_token", "api_" + "org_", ALNUM[:52], 34),
    ("linear_token", "lin_" + "oauth_", HEX, 64),
    ("grafana_token", "gl" + "c_", ALNUM, 120),
    ("stripe_key", "sk_" + "prod_", ALNUM, 24),
    ("stripe_key", "rk_" + "prod_", ALNUM, 24),
    ("langsmith_key", "lsv2_" + "sk_", HEX, 32),
    ("sentry_token", "sntr" + "ys_", ALNUM, 120),
    ("onepassword_token", "op" + "s_eyJ", ALNUM, 300),
    *(("fly_token", f"fm{name}_", ALNUM, 200) for name in ("2", "1r", "1a")),
    ("prefect_token", "pn" + "u_", ALNUM, 36),
    ("figma_token", "fi" + "gd_", URLSAFE, 40),
    ("heroku_key", "HRKU-" + "AA", URLSAFE, 58),
]
TOKENS = [
    *((kind, prefix + chars(alphabet, length)) for kind, prefix, alphabet, length in _PREFIXED),
    ("jwt", jwt()),
    ("github_token", "gh" + "s_1234567_" + jwt()),
    ("sendgrid_key", "S" + "G." + chars(URLSAFE, 22) + "." + chars(URLSAFE, 43)),
    ("postman_key", "PM" + "AK-" + chars(HEX, 24) + "-" + chars(HEX, 34)),
    ("airtable_token", "pa" + "t" + chars(ALNUM, 14) + "." + chars(HEX, 64)),
    ("gitlab_token", "gl" + "pat-" + chars(URLSAFE, 40) + ".01.0a1b2c3d4"),
]
TOKEN_CONTEXTS = [
    "{}",
    "use {} for now",
    "({})",
    "'{}'",
    "`{}`",
    "<{}>",
    "API={} rest",
    '{{"value": "{}"}}',
    "first line\\n{}\\nnext",
    "https://example.org/?x=1&t=%20{}&u=2",
    "日本語{}日本語",
    "{}\n",
]

SECRETS = [
    "hunter" + "2x",
    "Tr0ub4dor" + "&3",
    "s3cr3t" + "!pass#word",
    "p4ss" + "wörd",
    chars(B64, 40) + "==",
    "a1" + chars(HEX, 30),
    "correct-horse-9-" + "battery",
]
# kind, text with one place for the value; the value must go and all else must stay
PAIRS = [
    ("password", text)
    for text in (
        "password={}",
        "password = {}",
        "password: {}",
        "Password: {}",
        "PASSWORD={}\nUSER=bob",
        "DB_PASSWORD={} DB_USER=bob",
        "export PGPASSWORD='{}'",
        "passwd:{}",
        "pwd={}",
        "db.password={}",
        "spring.datasource.password={}",
        "passphrase: {}",
        'password="{}"',
        "password='{}'",
        "password = `{}`",
        '{{"user": "bob", "password": "{}", "port": 5}}',
        '{{\\"password\\": \\"{}\\"}}',
        "'password' => '{}',",
        'cfg["password"] = "{}"',
        "connect(user='bob', password='{}')",
        "Server=db;User Id=bob;Password={};Encrypt=true",
        "host=db user=bob password={} dbname=x",
        "<password>{}</password>",
        "alter role bob password '{}'",
        'the password is "{}", keep it',
        "DB_PASS={}",
        "pass: {}",
        "pw={}",
        "passcode: {}",
        "<passphrase>{}</passphrase>",
        "**Password:** `{}`",
        "- **password**: {}",
        "| password | {} | rotated |",
        "password: “{}”",
        "identified by '{}'",
        "my password is {}",
        "auth: {{ user: 'bob', pass: '{}' }}",
        'if password == "{}":',
    )
] + [
    (kind, text)
    for kind, text in (
        ("secret", "client_secret={}"),
        ("secret", "AWS_SECRET_ACCESS_KEY={}"),
        ("secret", 'aws_secret_access_key = "{}"'),
        ("secret", '{{"clientSecret": "{}"}}'),
        ("token", 'token: "{}"'),
        ("token", "access_token='{}'"),
        ("token", '"refreshToken": "{}"'),
        ("token", '//registry.example.org/:_authToken="{}"'),
        ("api_key", 'api_key="{}"'),
        ("api_key", 'apiKey: "{}"'),
        ("api_key", 'X-Api-Key: "{}"'),
        ("api_key", "AccountName=x;AccountKey='{}';EndpointSuffix=core.windows.net"),
        ("api_key", 'private_key = "{}"'),
        ("secret", "<secret>{}</secret>"),
        ("secret", "the client secret is {} now"),
        ("token", "<token>{}</token>"),
        ("token", "the token is `{}`"),
        ("api_key", "<apiKey>{}</apiKey>"),
        ("api_key", "the api_key is {}"),
        ("url_password", "postgres://bob:{}@db.example.org/app?sslmode=disable"),
    )
]
# Only quotes hold these together.
PHRASES = ["correct horse 9 battery, staple", "two words", "a, b; (c)", "ümläut und mehr"]
QUOTED = [
    (kind, text)
    for kind, key in (
        *(("password", key) for key in ("password", "PGPASSWORD", "passphrase", "passcode", "pwd", "pass", "pw")),
        *(("secret", key) for key in ("secret", "client_secret", "SECRET_KEY", "secretAccessKey")),
        *(("token", key) for key in ("token", "authToken", "ACCESS_TOKEN")),
        *(("api_key", key) for key in ("api_key", "apiKey", "x-api-key", "auth_key", "private_key", "signingKey")),
        *(("api_key", key) for key in ("AccountKey", "encryption_key", "master-key", "service_key", "accessKey")),
    )
    for text in (f'{key}="{{}}"', f"'{key}': '{{}}',", f'\\"{key}\\": \\"{{}}\\"', f"{key} := `{{}}`")
]
# kind, text, what must go
OTHERS = [
    ("authorization", "Authorization: Bearer {}", chars(URLSAFE, 40)),
    ("authorization", "curl -H 'Authorization: Bearer {}' https://x", chars(URLSAFE, 40)),
    ("authorization", "authorization: basic {}\nHost: x", base64.b64encode(b"bob:hunter2").decode()),
    ("authorization", '{{"Authorization": "token {}"}}', chars(HEX, 40)),
    ("authorization", 'headers = {{"Authorization": f"Bearer {}"}}', chars(ALNUM, 30)),
    ("token", "sent with Bearer {} just now", chars(ALNUM, 30)),
    ("url_password", "redis://:{}@cache:6379/0", "hunter2"),
    ("url_password", "mongodb+srv://bob:{}@c.example.org,d.example.org/x", "p%40ss%2Fword"),
    ("url_password", "see postgres://bob:{}@[::1]:5432/x, please", "p@ss:word"),
    ("url_password", "amqp://bob:{}@mq", "x"),
    ("password", "curl -u bob:{} https://example.org", "hunter2"),
    ("secret", "run --db-password {} --verbose", "hunter2"),
    ("token", "GET /x?access_token={}&y=1", chars(ALNUM, 24)),
    ("api_key", "GET /x?api_key={}&y=1", chars(ALNUM, 24)),
    ("api_key", "x-api-key: {}", chars(ALNUM, 24)),
    ("api_key", "AccountKey={};EndpointSuffix=x", chars(B64, 86) + "=="),
    ("slack_webhook", "https://hooks.slack.com/services/{}", "T0AB/B0CD/" + chars(ALNUM, 24)),
    ("discord_webhook", "https://discord.com/api/webhooks/123456789012345678/{}", chars(URLSAFE, 68)),
    *(("password", text, "p@ssw0rd") for text in ("<pwd>{}</pwd>", "my pwd is {}")),
    ("private_key", "client-key-data: {}", base64.b64encode(pem().encode()).decode()),
    ("password", "machine example.org login bob password {}", "hunter2"),
    ("password", "machine example.org\n  login bob\n  password {}\n", "hunter2"),
    ("password", "curl -ubob:{} https://example.org", "hunter2"),
    ("secret", "--password {}", "hunter2x"),
    ("secret", "mysql \\\n--password {} db", "hunter2x"),
    ("secret", "mysql\t--token {}", "abc123def456"),
    ("authorization", 'Authorization: Token token="{}"', "p4ssw0rd12345"),
    ("authorization", "Authorization: Token token={}", "p4ssw0rd12345"),
    ("shippo_token", "the key is {} there", "shippo_" + "live_" + chars(HEX, 40)),
    ("password", "alter role bob PASSWORD='{}';", "it''s p4ssw0rd"),
    ("password", '{{\\\\\\"password\\\\\\": \\\\\\"{}\\\\\\"}}', "p4ssw0rd1"),
    ("telegram_token", "bot 123456789:{}", "AA" + chars(URLSAFE, 33)),
    ("azure_client_secret", "Abc8{}", "Q~" + chars(ALNUM, 34)),
    ("azure_sas", "https://x.blob.core.windows.net/c?sv=1&sig={}&se=2", chars(ALNUM, 40) + "%3D"),
    ("terraform_token", "token Ab12Ab12Ab12Ab{} here", ".atlasv1." + chars(URLSAFE, 67)),
    ("github_token", "git clone https://{}@github.com/x", "ghp" + "_" + chars(ALNUM, 36)),
    ("url_password", "git clone https://[redacted:github_token]:{}@github.com/x", "p4ssw0rd"),
    *(("password", f"password = {q * 3}{{}}{q * 3}\nx = 1", "hunter2x") for q in ("'", '"', '\\"')),
    ("secret", "SECRET = '''{}'''", '\n  hunter2x\n  it\'s "so"\n'),
    *(
        ("password", "password={} next", secret)
        for secret in ("日本語" + "pass123", "abc€" + "def1", "€uro" + "123", "パス" + "ワード1")
    ),
    *(
        ("password", text, secret)
        for text, secret in (
            ("curl -u 'admin:{}' https://x", "s3 cret"),
            ('curl --user "admin:{}" https://x', "s3 cret's"),
            ("curl -u admin:{} https://x", "12345"),
            ("curl -su admin:{} https://x", "s3cret"),
            ('<password type="x">{}</password>', "hunter2x"),
            ("password: |\n  {}\nuser: bob", "hunter2x"),
            ("password: >-\n    {}", "hunter2x"),
            ("pwd={}", "/hunter!2x"),
            ("$pwd = '{}'", "hunter2x"),
        )
    ),
    ("private_key", "before\n{}\nafter", pem()),
    ("private_key", "before\n{}\nafter", pem("OPENSSH PRIVATE KEY")),
    ("private_key", "before\n{}\nafter", pem("PGP PRIVATE KEY BLOCK")),
    ("private_key", "before\n{}\nafter", pem("EC PRIVATE KEY", end=False)),
    ("private_key", '{{"k": "{}"}}', pem("PRIVATE KEY", newline="\\n")),
    ("private_key", "cut {} and prose", pem("PRIVATE KEY", newline="\\n", end=False)),
    *(
        ("private_key", "cut {} and prose", pem("PRIVATE KEY", newline=newline, end=False))
        for newline in (
            "\\\\n",
            "\\\\\\\\n",
            "%0A",
            "%250D%250A",
            "&#10;",
            "&#xA;",
            "\\u000a",
            "<br>",
            "<br />",
            "\n> ",
            "\n>> ",
        )
    ),
    ("private_key", "{}", pem("PRIVATE KEY", newline="\r\n") + "\r\n" + pem("PRIVATE KEY", lines=3, end=False)[:120]),
]

PROSE = """
the password is stored in the vault
The token ring network was common in the nineties.
Please reset your password before the token expires.
password: must be at least 8 characters
Password: required
a secret is a promise; the secret: never tell
the secret to good soup is time
token: the smallest unit a model reads
She forgot the password again, and the pass phrase too.
pass: 12, fail: 3, skip: 0
Bearer authentication is used here; send Authorization: Bearer tokens only.
see the Authorization header
press any key: enter
the monkey: a keyboard key = fun
a task-oriented, risk-averse, desk-bound team
sk-learn-compatible-estimators-are-welcome
keep the AIzawa family and the AKIA prefix in mind
the eyJ prefix marks a JWT, e.g. eyJ...
hf_ and ghp_ and npm_config_registry are prefixes
merge commit 3f2504e04f8911d39a0c0305e82c3301aabbccdd into main
fixed in 3f2504e (was: a1b2c3d)
3f2504e0-4f89-11d3-9a0c-0305e82c3301
id 550e8400-e29b-41d4-a716-446655440000, parent 6ba7b810-9dad-11d1-80b4-00c04fd430c8
sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==
md5 d41d8cd98f00b204e9800998ecf8427e of the empty file
aGVsbG8gd29ybGQ= says hello
write to bob@example.org or ann.lee@mail.example.com
git@github.com:owner/repository.git
https://github.com/owner/repository/commit/3f2504e04f8911d39a0c0305e82c3301aabbccdd
http://localhost:8080/path?mail=bob@example.org
http://localhost:8080?mail=bob@example.org
postgres://bob@db.example.org/app
postgres://db1:5432,db2:5432/app?user=bob@x
http://[::1]:9100/v1/health
-----BEGIN PUBLIC KEY-----
-----BEGIN CERTIFICATE-----
the docker run -u 1000:1000 flag
public_key=abcdef0123456789abcdef
partition_key: customer_2024_region_17
foreign key = orders.customer_id
{"max_tokens": 4096, "prompt_tokens": 128, "token": 5}
token_count=123456789 tokenizer=gpt2-medium-v2
password_hash_algorithm=argon2id password_length=24
password_file=/run/secrets/db
the password is sha256-hashed, base64 encoded, and was changed in 2024
| password | string | required | at least 8 characters |
the token is OAuth2-based, the secret is in Vault and the api_key is required
pass: 120ms, fail: 3/4
PWD=/home/bob/project
PWD=/home/ada/app
PWD="/home/ada/app" OLDPWD=/home
echo $PWD: done
then curl -o x https://example.org; docker run -u 1000:1000 x
of machine learning login page password reset
<password type="x" required="true"/>
el año pasado, contraseña olvidada; パスワードを忘れた; Пароль забыт
""".strip().splitlines()

PLACEHOLDERS = [
    "${DB_PASSWORD}", "$DB_PASSWORD", "$(cat /run/x)", "{{ db_password }}", "{password}", "<password>", "<your token>",
    "%DB_PASSWORD%", "%s", "%(password)s", ":password", "$1", "?", "***", "********", "xxxxx", "...", "none", "None",
    "null", "true", "false", "undefined", "string", "str", "required", "os.environ['DB_PASSWORD']", "process.env.TOKEN",
    "get_password()", "settings.PASSWORD", "self.token", "config['password']", "args.password", "vault.read(path)",
    "secrets.API_KEY", "db_password", "password", "[redacted:password]", "/run/secrets/password", "Optional[str]",
    "base64.b64decode(value)", "request.headers.get('x')", "./secrets/key", "vault://secret/data/x",
]  # fmt: skip
KEYS = ["password", "DB_PASSWORD", "secret", "client_secret", "token", "api_key", "apiKey", "aws_secret_access_key"]
# What is code outside quotes is a value inside them.
QUOTABLE = [value for value in PLACEHOLDERS if value[-1] not in ")'" and not re.search(r"/|\w\.|\w\[", value)]
CLEAN = [
    *PROSE,
    'password = """None"""',
    "token = '''${TOKEN}'''",
    *(f"{key}{separator}{value}" for key in KEYS for separator in ("=", " = ", ": ") for value in PLACEHOLDERS),
    *(f'"{key}": "{value}"' for key in KEYS for value in QUOTABLE),
    *(f"postgres://bob:{value}@db/x" for value in ("${PASSWORD}", "<password>", "***", "xxxx", "{password}", "...")),
    *(f"Authorization: Bearer {value}" for value in ("${TOKEN}", "<token>", "$TOKEN", "{token}", "***", "...")),
]
