#!/usr/bin/env python3
"""templates.py - chat templates rendered by transformers and by this program, side by side.

usage: templates.py RENDERER [TEMPLATE_OR_FOLDER ...]     templates.py --golden     templates.py --ids HARNESS
RENDERER is tests/model/test_template. Templates: tests/model/templates/ and what is named: *.jinja files and
tokenizer_config.json. Every conversation is rendered with every setting of thinking; both must write the same text,
or both must refuse. A named template may also be refused here alone: those are counted and listed. --golden prints
tests/model/fixtures/template_cases.jsonl: the constructs below and some conversations, with what Jinja writes (null =
an error).
--ids: token ids of `tokenize --chat` and of apply_chat_template, for models/tiny with each of the own templates.
Needs transformers (5.x) and jinja2.
"""
import datetime, itertools, json, os, shutil, subprocess, sys, tempfile

import transformers
from transformers.utils import chat_template_utils as ctu

HERE = os.path.dirname(os.path.abspath(__file__))
NOW = datetime.datetime.fromtimestamp(1767225600)


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


ctu.datetime = Clock

USERS = [
    "Hello",
    "  spaces around\n\n",
    "line\r\nbreaks\tand \\ backslash \"quotes\" 'single' {{ x }} {% y %} <think>no</think> end",
    "\u4f60\u597d, \u00e4\u00f6\u00fc\u00df \U0001f600 e\u0301 \u200d\u00a0\u3000",
    "",
    "a" * 300,
    "</think> first </think> second",
    "<tool_response>\nx\n</tool_response>",
]
SYSTEMS = [None, "You answer in one word.", "  System with space \n", ""]


def conversations():
    for user, system in itertools.product(USERS, SYSTEMS):
        head = [] if system is None else [{"role": "system", "content": system}]
        yield head + [{"role": "user", "content": user}]
    for user, system in itertools.product(USERS[:4], SYSTEMS[:2]):
        head = [] if system is None else [{"role": "system", "content": system}]
        yield head + [
            {"role": "user", "content": user},
            {"role": "assistant", "content": "<think>\nhm\n</think>\n\nAnswer one"},
            {"role": "user", "content": "again " + user},
            {"role": "assistant", "content": "Answer two", "reasoning_content": "why"},
            {"role": "user", "content": "last"},
        ]
    yield [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    yield [{"role": "assistant", "content": "a"}]
    yield [{"role": "system", "content": "only"}]
    yield [{"role": "tool", "content": "t"}]
    yield []
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": ["\u00e4", None, True, 1.5]}}}
    yield [
        {"role": "user", "content": "call"},
        {"role": "assistant", "content": "", "tool_calls": [call, dict(call, id="abcdefghi")]},
        {"role": "tool", "content": "result", "name": "f", "tool_call_id": "abcdefghi"},
        {"role": "tool", "content": "result 2"},
        {"role": "user", "content": "go on"},
    ]
    yield [{"role": "user", "content": [{"type": "text", "text": "part one"}, {"type": "text", "text": " two"}]}]
    yield [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it"}]}]


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "f",
            "description": "Does <f> & \"more\"",
            "parameters": {
                "type": "object",
                "properties": {"x": {"type": "integer", "description": "an x"}, "y": {"type": "array"}},
                "required": ["x"],
            },
        },
    }
]


def settings():
    for thinking, generation in itertools.product([None, True, False], [True, False]):
        s = {"add_generation_prompt": generation}
        if thinking is not None:
            s["enable_thinking"] = s["thinking"] = thinking
        yield s, None
    yield {"add_generation_prompt": True}, TOOLS
    yield {"add_generation_prompt": True, "enable_thinking": False}, TOOLS


SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


# One construct or rule each; rendered with VARIABLES.
CONSTRUCTS = r"""
{{ text }}|{{ none }}|{{ true }}|{{ 1.0 }}|{{ 1e20 }}|{{ 0.1 + 0.2 }}|{{ 5 / 2 }}|{{ 7 // 2 }}|{{ -7 // 2 }}|{{ -7 % 3 }}|{{ 2 ** 10 }}|{{ missing }}
{{ ['a', 1, none, 1.5, "it's", 'say "x"', 'b\n\u00e9\x07', true] }}|{{ {'k': [1, (2,)], 3: {}} }}|{{ (1, 'a') }}|{{ () }}
{{ 'a' 'b' ~ 1 ~ none ~ [1] ~ missing }}|{{ 'x' * 3 }}|{{ [1] + [2] }}|{{ 'tab\tq\'"\\ \u4f60 \d' }}
  {% if true %}  
  kept {%- if true %} a {%+ if true %}
b{% endif %}
  {% endif %}
{#- gone -#}  x  {# y #}
{{- ' z ' -}}   end{% endif %}
{% raw %}{{ not }} {% this %}{% endraw %}|{%- raw -%}  {{ x }}  {%- endraw -%}  |
{% for x in [1, 2, 3] %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }};{% endfor %}
{% for x in [] %}{% else %}none{% endfor %}|{% for k, v in d.items() %}{{ k }}={{ v }},{% endfor %}|{% for k in d %}{{ k }}{% endfor %}|{% for c in 'h\u00e9' %}{{ c }}.{% endfor %}
{% for x in range(10) if x % 2 == 0 %}{% if x == 4 %}{% continue %}{% endif %}{% if x == 8 %}{% break %}{% endif %}{{ x }}/{{ loop.index }} {% endfor %}
{% for a in [1, 2] %}{% for b in [3, 4] %}{{ loop.depth }}{{ a }}{{ b }} {% endfor %}{{ loop.index }}{% endfor %}
{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 + i %}{{ x }}{% endfor %}{{ x }}|{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(n=0, d={'a': 1}) %}{% for i in range(4) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}{{ ns.d.a }}{{ ns.nothing }}
{% set a, b = 1, 2 %}{{ a }}{{ b }}|{% set c = 1, 2 %}{{ c }}|{% set d2 %} in {{ a }} {% endset %}[{{ d2 }}]|{% set e | upper | trim %} abc {% endset %}[{{ e }}]
{% macro m(a, b='d', c=none) %}<{{ a }},{{ b }},{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m(b=3, a=4) }}{{ m() }}{{ m(1) | length }}
{% macro fact(n) %}{{ 1 if n <= 1 else n * (fact(n - 1) | int) }}{% endmacro %}{{ fact(10) }}
{% set later = 'one' %}{% macro show() %}{{ later }}{% endmacro %}{{ show() }}{% set later = 'two' %}{{ show() }}
{% with a = 1, b = 2 %}{{ a + b }}{% set a = 7 %}{{ a }}{% endwith %}{{ a }}|{% filter upper %}abc{{ 1 }}{% endfilter %}
{% generation %}{% set q = 1 %}in{{ q }}{% endgeneration %}{{ q }}
{{ 'yes' if true }}|{{ 'yes' if false }}|{{ 'a' if false else 'b' if false else 'c' }}|{{ (1 if true else 2) + 1 }}
{{ 1 and 0 }}|{{ '' or 'x' }}|{{ none or false }}|{{ not 1 }}|{{ not not 1 }}|{{ 1 < 2 < 3 }}|{{ 1 < 2 > 3 }}|{{ 1 == 1.0 == true }}|{{ 'a' != 'b' }}
{{ 'b' in 'abc' }}|{{ 1 in [1] }}|{{ 'k' in {'k': 1} }}|{{ 'x' not in 'abc' }}|{{ 1 in missing }}|{{ not 'a' in 'b' }}|{{ '' in 'x' }}
{{ 1 + 2 * 3 - 4 }}|{{ (1 + 2) * 3 }}|{{ 2 * 3 ~ 4 }}|{{ 1 ~ 2 + 3 if false else 0 }}|{{ -2 ** 2 }}|{{ -1 | abs }}|{{ 'a' + 'b' | upper }}|{{ 10 - 2 - 3 }}
{{ [1, 2, 3, 4][1:3] }}|{{ [1, 2, 3][::-1] }}|{{ [1, 2, 3, 4, 5][3:0:-2] }}|{{ 'h\u00e9llo'[1:4] }}|{{ 'abc'[::-1] }}|{{ 'abc'[-2:] }}|{{ [1, 2][5:] }}|{{ [1, 2][:-1] }}|{{ [1, 2, 3][-10:10] }}
{{ [1, 2][0] }}{{ [1, 2][-1] }}{{ [1, 2][9] }}|{{ 'h\u00e9'[1] }}|{{ d['a'] }}{{ d.a }}{{ d.zz }}{{ d['zz'] }}|{{ [[1, 2]][0][1] }}|{{ [5].0 }}|{{ {'items': 1}['items'] }}
{{ text.upper() }}|{{ ' x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xyaxy'.lstrip('yx') }}|{{ 'a\n\n'.rstrip('\n') }}|{{ 'a,b,c'.split(',') }}|{{ 'a,b,c'.split(',', 1) }}|{{ ' a  b '.split() }}|{{ 'a b c'.split(none, 1) }}
{{ 'abc'.startswith('a') }}|{{ 'abc'.endswith(('x', 'c')) }}|{{ 'aXbX'.replace('X', '') }}|{{ 'aaa'.replace('a', 'b', 2) }}|{{ 'abc'.find('c') }}|{{ 'abc'.find('z') }}|{{ 'abab'.count('ab') }}|{{ '-'.join(['a', 'b']) }}
{{ 'a.b.c'.rsplit('.', 1) }}|{{ 'pre-x'.removeprefix('pre-') }}|{{ 'x.py'.removesuffix('.py') }}|{{ 'a\nb\r\nc'.splitlines() }}|{{ 'hELLO wORLD'.capitalize() }}|{{ "it's a-b c1d _x".title() }}|{{ 'ab'.replace('', '-') }}
{{ d.keys() | list }}|{{ d.values() | list }}|{{ d.get('a') }}|{{ d.get('q', 'w') }}|{{ d.get('q') }}|{{ d | items | list }}|{{ d.items() | length }}
{{ ' x ' | trim }}|{{ 'xax' | trim('x') }}|{{ [1, 2] | length }}|{{ 'h\u00e9' | count }}|{{ missing | default('d') }}|{{ '' | default('d') }}|{{ '' | default('d', true) }}|{{ none | d('x', boolean=true) }}|{{ none | trim }}
{{ 'aBc' | upper }}{{ 'aBc' | lower }}{{ 'aBc dE' | capitalize }}|{{ 'foo bar-baz (qux)' | title }}|{{ '\u00e4\u00f6' | upper }}|{{ ['a', 1, none] | join(', ') }}|{{ [d, d] | join('+', attribute='a') }}|{{ 'abc' | join('.') }}
{{ 'a-b' | replace('-', '+') }}|{{ 'aaa' | replace('a', 'b', 1) }}|{{ [1, 2] | first }}{{ [1, 2] | last }}{{ [] | first }}|{{ 'abc' | first }}{{ 'abc' | last }}|{{ 'abc' | list }}|{{ 'abc' | reverse }}|{{ [1, 2] | reverse | list }}
{{ [1, 2, 3] | select('odd') | list }}|{{ [1, 2, 3] | reject('even') | list }}|{{ rows | selectattr('r', 'equalto', 'u') | map(attribute='c') | list }}|{{ rows | rejectattr('r', '==', 'u') | list | length }}|{{ rows | selectattr('c') | list | length }}|{{ rows | map(attribute='zz', default='-') | join }}|{{ ['a'] | map('upper') | list }}
{{ [] | select('odd') and 'a generator is true' }}|{{ '12' | int + 1 }}|{{ 3.9 | int }}|{{ -3 | abs }}|{{ 5 | string + 'x' }}
{{ d | tojson }}|{{ rows | tojson(indent=2) }}|{{ 'é"\\\n\u2028</a>' | tojson }}|{{ 'é😀' | tojson(ensure_ascii=true) }}|{{ {'b': 1, 'a': [true, none, 1.5]} | tojson(sort_keys=true) }}|{{ {'a': [1, 2], 'b': {}} | tojson(separators=(',', ':')) }}|{{ [] | tojson(indent=4) }}
{{ x is defined }}|{{ text is defined }}|{{ x is not defined }}|{{ none is none }}|{{ 'a' is string }}|{{ 1 is number }}|{{ true is number }}|{{ 1 is integer }}|{{ true is integer }}|{{ 1.5 is float }}|{{ true is boolean }}|{{ true is true }}|{{ 1 is true }}|{{ false is false }}
{{ d is mapping }}|{{ [] is mapping }}|{{ 'a' is iterable }}|{{ 1 is iterable }}|{{ d is sequence }}|{{ 1 is sequence }}|{{ 3 is odd }}{{ 3 is even }}|{{ 9 is divisibleby 3 }}|{{ 1 is eq 1 }}|{{ 1 is in [1, 2] }}|{{ 2 is gt(1) }}|{{ not x is defined }}|{{ 1 is eq(1) and 2 is ne 1 }}|{{ range is callable }}
{{ range(3) | list }}|{{ range(1, 6, 2) | list }}|{{ range(3, 0, -1) | list }}|{{ dict(a=1) }}|{{ strftime_now('%Y') | length }}
{{ 1_000 + 1 }}|{{ 1.5e3 }}|{{ 12345678901234567 }}|{{ 1e16 }}|{{ 1e15 }}|{{ 0.0001 }}|{{ 0.00001 }}|{{ 1.5e300 * 1e10 }}
{{ missing.attribute }}
{{ missing + 'x' }}
{{ 'a' + 1 }}
{{ undefined_function() }}
{{ raise_exception('no: ' ~ 1) }}
{{ none.x.y }}
{{ 1 < 'a' }}
{{ 1 // 0 }}
{{ [1].append(2) }}
{% set d.a = 1 %}
{{ 'a' in 1 }}
{% for x in 5 %}{% endfor %}
{% if true %}
{{ 'open
{% endfor %}
{{ 1 2 }}
{{ [] | select('odd') | length }}
{% break %}
{% set a, b = [1, 2, 3] %}
{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}
""".strip("\n")
VARIABLES = {
    "text": "Text \u00e9",
    "d": {"a": 1, "b": {"c": [1, "x"]}, "\u00e9": None},
    "rows": [{"r": "u", "c": "one"}, {"r": "s", "c": ""}, {"r": "u", "c": "two"}],
}


def constructs():
    """Blocks of lines: a line that begins with a blank or follows an open block belongs to the one before."""
    lines = CONSTRUCTS.split("\n")
    layout = lines.index("  {% if true %}  ")
    end = layout + 6
    return lines[:layout] + ["\n".join(lines[layout:end])] + lines[end:]


def golden():
    cases = [(t, VARIABLES) for t in constructs()]
    cases.append(("a\u00a0\u3000{%- if true -%}\u2003\u00a0b{{ 'x' -}}\u00a0 c\u00a0{% endif %}", {}))  # wide blanks
    picked = [list(conversations())[i] for i in (0, 1, 5, 19, 25, 33, 37, 38)]
    for name, template in sources([os.path.join(HERE, "templates")]):
        for messages in picked:
            for kwargs, tools in list(settings())[0:5:2]:
                cases.append((template, {"messages": ctu._alias_reasoning_fields(messages), "tools": tools, **SPECIAL, **kwargs}))
    for template, variables in cases:
        try:
            text = ctu._compile_jinja_template(template).render(**variables)
        except Exception:  # an error of any kind: null
            text = None
        print(json.dumps({"template": template, "variables": variables, "text": text}, ensure_ascii=False))


def sources(paths):
    for path in paths:
        names = [path]
        if os.path.isdir(path):
            names = sorted(os.path.join(path, n) for n in os.listdir(path))
        for name in names:
            if name.endswith(".jinja"):
                yield name, open(name, encoding="utf-8", newline="").read()
            elif name.endswith("tokenizer_config.json"):
                found = json.load(open(name, encoding="utf-8")).get("chat_template")
                for text in [found] if isinstance(found, str) else [t["template"] for t in found or []]:
                    yield name, text


def expected(template, messages, tools, kwargs):
    try:
        return "text", ctu.render_jinja_template([messages], tools=tools, chat_template=template, **kwargs)[0][0]
    except Exception as e:  # whatever it raises: the template refuses, or is broken
        return "error", type(e).__name__ + ": " + str(e)[:200]


def compare_ids(harness):
    ctu.datetime = datetime.datetime  # both write today's date
    tiny, count, bad = os.path.abspath(os.path.join(HERE, "..", "..", "models", "tiny")), 0, 0
    for name, template in sources([os.path.join(HERE, "templates")]):
        folder = tempfile.mkdtemp()
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            os.symlink(os.path.join(tiny, file), os.path.join(folder, file))
        json.dump({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
                   "chat_template": template}, open(folder + "/tokenizer_config.json", "w"))
        tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        for user, system, thinking in itertools.product(USERS[:4], SYSTEMS[:2], [None, True, False]):
            user = user.strip() or "x"
            messages = ([] if system is None else [{"role": "system", "content": system}]) + [
                {"role": "user", "content": user}]
            flags = ["--chat-template", "folder"] + ([] if system is None else ["--system", system])
            kwargs = {}
            if thinking is not None and "enable_thinking" in template:
                flags += ["--thinking", "true" if thinking else "false"]
                kwargs = {"enable_thinking": thinking, "thinking": thinking}
            elif thinking is not None:
                continue
            wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False, **kwargs)
            run = subprocess.run([harness, "tokenize", "--chat", "--model", folder] + flags, input=user.encode(),
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            got = [int(i) for i in run.stdout.split()]
            count += 1
            if got != list(wanted):
                bad += 1
                print(f"{name}: {flags} {user!r}: {run.stderr.decode()} wanted {wanted[:20]}... got {got[:20]}...")
        shutil.rmtree(folder)
    print(f"ids: {count} prompts, {count - bad} equal to apply_chat_template of transformers {transformers.__version__}")
    sys.exit(1 if bad or not count else 0)


def main():
    if sys.argv[1] == "--ids":
        compare_ids(sys.argv[2])
    if sys.argv[1] == "--golden":
        golden()
        return
    renderer, paths = sys.argv[1], sys.argv[2:]
    asked, wanted, labels = [], [], []
    for name, template in sources([os.path.join(HERE, "templates")] + paths):
        for messages in conversations():
            for kwargs, tools in settings():
                kwargs = {**SPECIAL, **kwargs}
                kind, text = expected(template, messages, tools, kwargs)
                variables = {
                    "messages": ctu._alias_reasoning_fields(messages), "tools": tools, "documents": None, **kwargs}
                asked.append(json.dumps({"template": template, "variables": variables}))
                wanted.append((kind, text))
                labels.append((name, json.dumps(messages)[:200], kwargs, bool(tools)))
    run = subprocess.run([renderer, "--render"], input="\n".join(asked) + "\n", stdout=subprocess.PIPE, text=True)
    lines = run.stdout.splitlines()
    count = {"equal": 0, "both refuse": 0, "refused here only": 0, "DIFFERENT": 0, "REFUSED THERE ONLY": 0}
    reasons = {}
    for (kind, text), line, label in zip(wanted, lines, labels):
        got = json.loads(line)
        if kind == "text" and "text" in got:
            key = "equal" if got["text"] == text else "DIFFERENT"
        elif kind == "error" and "error" in got:
            key = "both refuse"
        else:
            key = "refused here only" if kind == "text" else "REFUSED THERE ONLY"
        count[key] += 1
        if key not in ("equal", "both refuse"):
            shown = got.get("error", "")
            reasons.setdefault((key, os.path.basename(label[0]), shown[-120:]), [0, label, text, got])[0] += 1
    for (key, name, shown), (n, label, text, got) in sorted(reasons.items(), key=lambda x: x[0])[:40]:
        print(f"{key}: {name}: {n} times: {shown}")
        if key in ("DIFFERENT", "REFUSED THERE ONLY"):
            print("   ", label[1:], "\n    wanted", repr(text[-300:]), "\n    got   ", repr(got.get("text", "")[-300:]))
    templates = len({label[0] for label in labels})
    print(f"transformers {transformers.__version__}: {templates} templates, {len(labels)} renderings: "
          + ", ".join(f"{v} {k}" for k, v in count.items()))
    bad = count["DIFFERENT"] + count["REFUSED THERE ONLY"] + (count["refused here only"] if not paths else 0)
    sys.exit(1 if bad or len(lines) != len(labels) or not labels else 0)


main()
