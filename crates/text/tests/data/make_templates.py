"""Writes what Jinja prints for small templates, in the environment of transformers.

    pip install jinja2==3.1.* && python make_templates.py

`templates.json` has the variables and `cases`: `template`, and `expected` or `error`.
"""

import datetime
import json
import pathlib

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2026, 1, 15, 9, 30)


class Generation(jinja2.ext.Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(
        x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
)
environment.filters["tojson"] = tojson
environment.globals["raise_exception"] = raise_exception
environment.globals["strftime_now"] = NOW.strftime

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Gets the <weather> & \"more\" – für Köln",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
            "required": ["city"],
            "items": {"x": 1.0},
        },
    },
}
VALUES = {
    "none": None,
    "yes": True,
    "no": False,
    "int": 7,
    "float": 1.5,
    "whole": 2.0,
    "big": 1e20,
    "tiny": 1e-7,
    "text": "it's \"a\"\n\ttext\\ \u00e9\u2028\U0001f680\x7f<&>",
    "list": [1, "two", None, True, 2.5, ["x"]],
    "dict": {"b": 1, "a": {"c": [], "d": {}}, "items": [3]},
    "empty": [],
    "tool": TOOL,
}
MESSAGES = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "  Hi <b>\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nHello", "extra": None},
]

TEMPLATES = [
    # white space
    "  {% if yes %}\n  a\n  {% endif %}\n b\n",
    "{%- if yes -%}\n  a  \n{%- endif -%}\n",
    "x\n\n",
    "{{ int }}\n{# note #}\n{{ int }}\n",
    "  {#- note -#}  a",
    "{% for m in messages %}\n    {{ m.role }}\n{% endfor %}\n",
    "a {%+ if yes %} b {% endif %}",
    "{% raw %}{{ x }}{% endraw %}",
    # values as Python prints them
    "{{ none }} {{ yes }} {{ no }} {{ int }} {{ float }} {{ whole }}",
    "{{ list }}",
    "{{ dict }}",
    "{{ list | string }} {{ none | string }} {{ yes | string }}",
    "{{ 'a' ~ none ~ yes ~ int ~ float ~ list }}",
    "{{ list | join('-') }}",
    "{{ big }} {{ tiny }}",
    "{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 3 }} {{ 6 / 3 }}",
    "{{ 'ab' * 3 }} {{ [1] * 2 }} {{ [1] + [2] }}",
    # tojson
    "{{ tool | tojson }}",
    "{{ tool | tojson(indent=4) }}",
    "{{ tool | tojson(indent=2, sort_keys=true) }}",
    "{{ dict | tojson(separators=(',', ':')) }}",
    "{{ text | tojson }}",
    "{{ text | tojson(ensure_ascii=True) }}",
    "{{ [big, tiny, whole, none, yes] | tojson }} {{ empty | tojson(indent=2) }}",
    "{{ undefined_thing | tojson }}",
    "{{ list | tojson(indent=0) }}",
    # undefined
    "[{{ nothing }}]",
    "{{ nothing.x }}",
    "{{ messages[0].nothing }}|{{ messages[9] }}|{{ messages[0]['nothing'] is defined }}",
    "{{ messages[0].nothing.more }}",
    "{{ 'a' + nothing }}",
    "{% for x in nothing %}x{% else %}none{% endfor %}",
    "{{ nothing is defined }} {{ nothing is none }} {{ none is defined }} {{ not nothing }}",
    "{{ nothing | default('d') }} {{ none | default('d') }} {{ none | default('d', true) }}",
    "{{ nothing | length }}",
    "{{ nothing == none }} {{ nothing is string }}",
    # tests
    "{% for v in [none, yes, int, float, text, list, dict, nothing] %}"
    "{{ v is mapping }}{{ v is iterable if v is not none and v is not number else '-' }}"
    "{{ v is sequence }}{{ v is string }}{{ v is number }}{{ v is boolean }}"
    "{{ v is integer }}{{ v is float }} {% endfor %}",
    "{{ 'a' in dict }} {{ 'b' in 'abc' }} {{ 2 not in list }} {{ 'two' in list }}",
    "{{ int is odd }} {{ int is even }} {{ int is divisibleby 7 }} {{ yes is true }} {{ no is false }}",
    "{{ dict is eq dict }} {{ 1 == 1.0 }} {{ yes == 1 }} {{ 'a' < 'b' }} {{ 1 < 2 < 3 }}",
    # methods
    "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'xxa'.lstrip('x') }}|{{ 'a\n'.rstrip('\n') }}",
    "{{ messages[2].content.split('</think>')[-1].lstrip('\n') }}",
    "{{ messages[2].content.split('</think>')[0].split('<think>')[-1].strip() }}",
    "{{ 'a,b,c'.split(',', 1) }} {{ 'a b  c'.split() }} {{ 'a,b,c'.rsplit(',', 1) }}",
    "{{ 'abc'.startswith('a') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.replace('b', 'x') }}",
    "{{ 'Abc'.upper() }} {{ 'Abc'.lower() }} {{ 'abc def'.title() }} {{ 'abc'.capitalize() }}",
    "{{ 'abc'.find('c') }} {{ 'abcb'.rfind('b') }} {{ 'abcb'.count('b') }} {{ '-'.join(['a', 'b']) }}",
    "{{ 'prefix-a'.removeprefix('prefix-') }} {{ 'a.txt'.removesuffix('.txt') }}",
    "{{ 'a=b=c'.partition('=') }} {{ 'a=b=c'.rpartition('=') }} {{ 'abc'.partition('x') }}",
    "{{ '12'.isdigit() }} {{ 'ab'.isalpha() }} {{ 'a1'.isalnum() }}",
    "{% for k, v in dict.items() %}{{ k }}={{ v }};{% endfor %}",
    "{{ dict.get('b') }} {{ dict.get('z') }} {{ dict.get('z', 3) }} {{ dict.keys() | list }}",
    "{% for k, v in tool.function.parameters.items() %}{{ k }},{% endfor %}",
    "{% for k, v in dict | items %}{{ k }},{% endfor %}{% for k, v in dict | dictsort %}{{ k }},{% endfor %}",
    "{{ list.append(1) }}",
    "{{ ' a\x1c\u00a0'.strip() }}|{{ ' \u3000b\x1f' | trim }}|",
    # filters
    "{{ text | length }} {{ list | length }} {{ dict | length }} {{ list | first }} {{ list | last }}",
    "{{ ' x ' | trim }} {{ 'aXb' | upper }} {{ 'aXb' | lower }} {{ 'abc' | reverse }} {{ [1, 2] | reverse | list }}",
    "{{ messages | map(attribute='role') | join(',') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }}",
    "{{ [3, 1, 2] | sort }} {{ [3, 1, 2] | max }} {{ [1, 2] | sum }} {{ ['a', 'b', 'a'] | unique | list }}",
    "{{ '3' | int + 1 }} {{ 3.7 | int }} {{ '2.5' | float }} {{ 3.14159 | round(2) }} {{ -2 | abs }}",
    "{{ 'a\nb' | indent(2) }}|{{ 'a\nb' | indent(2, true) }}",
    "{{ '<b>' | safe }} {{ '<b>' }} {{ '<b>' | e }}",
    "{{ list[1:3] }} {{ list[::-1] }} {{ text[:4] }} {{ list[-1] }} {{ messages[1:] | length }}",
    # statements
    "{% set ns = namespace(n=0, s='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% set ns.s = ns.s ~ m.role[0] %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}",
    "{% if yes %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% set x %}a{{ int }}b{% endset %}{{ x | upper }}",
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}"
    "{{ loop.length }}{{ loop.revindex }} {% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }} {% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined }}>"
    "{{ loop.nextitem.role if loop.nextitem is defined }} {% endfor %}",
    "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% break %}{% endfor %}",
    "{% macro tag(name, text='-', sep=':') %}<{{ name }}{{ sep }}{{ text }}>{% endmacro %}"
    "{{ tag('a') }}{{ tag('b', 'c') }}{{ tag('d', sep='=') }}",
    "{% macro deep(v) %}{% if v is mapping %}{% for k, x in v.items() %}{{ k }}({{ deep(x) }})"
    "{% endfor %}{% else %}{{ v }}{% endif %}{% endmacro %}{{ deep(dict) }}",
    "{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(4, 0, -2) %}{{ i }}{% endfor %}",
    "{{ 'a' if int > 5 else 'b' }}{{ 'a' if no }}{{ none or 'c' }}{{ yes and 'd' }}",
    "{% filter upper %}abc{% endfilter %}",
    "{%- generation %}\n{{ messages[2].content }}{% endgeneration -%}\n end",
    "a\n{% generation -%}\n  b\n  {%- endgeneration %}\nc",
    "{{ strftime_now('%d %b %Y') }} {{ strftime_now is defined }}",
    "{{ raise_exception('No, \u201cthis\u201d: ' ~ int) }}",
    "{{ messages[0].content + messages[0] }}",
    "{{ unknown_function() }}",
    "{{ 'x' | no_such_filter }}",
    "{% if %}",
    "{{ dict(a=1, b='x') }}",
    "{{ messages[0]['role'] }} {{ messages[0].get('role') }} {{ (messages | first).role }}",
    "{{ [1, 2, 3] | batch(2) | list }} {{ {'a': 1}.a }} {{ ('a', 'b') }} {{ ('a',) }}",
    "{{ 'tab\tquote\\'s' }}",
    "{{ 1_000 }} {{ 1e3 }} {{ 0.1 + 0.2 }}",
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}",
    "{% with x = 5 %}{{ x }}{% endwith %}",
    "{% call(x) m() %}{% endcall %}",
]


def render(source):
    try:
        template = environment.from_string(source)
        return {"expected": template.render(messages=MESSAGES, tools=None, **VALUES)}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    cases = [{"template": source, **render(source)} for source in TEMPLATES]
    data = {"messages": MESSAGES, "extra": VALUES, "now": NOW.isoformat(), "cases": cases}
    path = pathlib.Path(__file__).with_name("templates.json")
    path.write_text(json.dumps(data, ensure_ascii=True, indent=1) + "\n")
