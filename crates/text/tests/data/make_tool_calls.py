"""Writes what assistants' messages with tool calls look like in each notation.

    pip install jinja2==3.1.* && python make_tool_calls.py FOLDER_OF_TEMPLATES

FOLDER_OF_TEMPLATES is `conformance/templates/jinja` of the shared data. Where a family's template
renders calls, its text is what Jinja gives. LFM 2, Phi-4 Mini and Granite 3 render none: their texts
are written here after the model cards, and read by Python itself (`ast`, `json`).

`tool_calls.json` has `tools`, and for each notation `cases`: `calls` and `text`.
"""

import ast
import json
import pathlib
import re
import sys

from make_templates import environment

TOOLS = [
    ("get_weather", {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["C", "F"]}}, ["city"]),
    ("add", {"xs": {"type": "array", "items": {"type": "number"}}, "round": {"type": "boolean"}}, ["xs"]),
    ("now", {}, []),
    ("write_note", {"text": {"type": "string"}}, ["text"]),
    (
        "search",
        {
            "q": {"type": "string"},
            "limit": {"type": ["integer", "null"]},
            "tags": {"type": "array", "items": {"type": "string"}},
            "filter": {
                "type": "object",
                "properties": {
                    "deep": {"type": "object", "properties": {"on": {"type": "boolean"}}},
                    "limit": {"type": "integer"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
            },
        },
        ["q"],
    ),
]

CALLS = [
    [("get_weather", {"city": "Oslo", "unit": "C"})],
    [("get_weather", {"city": "Oslo"}), ("add", {"xs": [1, 2.5, 3], "round": False})],
    [("now", {})],
    [("get_weather", {"city": "Zürich – 東京 🗼"})],
    [("write_note", {"text": 'He said "hi"\n\tC:\\temp, it\'s ok\n'})],
    [("write_note", {"text": "<b>a & b</b> </tool_call> [/x] {y} ]}"})],
    [("add", {"xs": [0, -17, 2.5, -3e-07, 1e22], "round": True})],
    [("search", {"q": "a", "filter": {"deep": {"on": False}, "limit": 3, "tags": ["x", "y"]}})],
    [("search", {"q": "", "limit": None, "tags": []})],
    [
        ("now", {}),
        ("write_note", {"text": 'fn main() { println!("{}", x[0]); }'}),
        ("search", {"q": "12", "limit": 5, "tags": ["true", "None"]}),
    ],
]

# Made like CALLS, in the words of the model card of LFM 2.
LFM2 = [
    '[get_weather(city="Oslo", unit="C")]',
    '[get_weather(city="Oslo"), add(xs=[1, 2.5, 3], round=False)]',
    "[now()]",
    '[get_weather(city="Zürich – 東京 🗼")]',
    '[write_note(text="He said \\"hi\\"\\n\\tC:\\\\temp, it\'s ok\\n")]',
    '[write_note(text="<b>a & b</b> </tool_call> [/x] {y} ]}")]',
    "[add(xs=[0, -17, 2.5, -3e-07, 1e+22], round=True)]",
    '[search(q="a", filter={"deep": {"on": False}, "limit": 3, "tags": ["x", "y"]})]',
    '[search(q="", limit=None, tags=[])]',
    '[now(), write_note(text="fn main() { println!(\\"{}\\", x[0]); }"), '
    'search(q="12", limit=5, tags=["true", "None"])]',
]

# Texts of other spacing, quotes and order that are read as well.
VARIANTS = {
    "Hermes": [
        ('<tool_call>{"arguments":{"city":"Oslo"},"name":"get_weather"}</tool_call>', [("get_weather", {"city": "Oslo"})]),
        (
            '<tool_call>\n{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}\n</tool_call>',
            [("get_weather", {"city": "Oslo"})],
        ),
        ('<tool_call>\n{"type": "function", "name": "now"}\n</tool_call>\n', [("now", {})]),
    ],
    "Llama3": [
        ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}', [("get_weather", {"city": "Oslo"})]),
        ('<|python_tag|>get_weather.call(city="Oslo")', [("get_weather", {"city": "Oslo"})]),
        ('\n{"name":"add","parameters":{"xs":[1]}}', [("add", {"xs": [1]})]),
    ],
    "MistralList": [('[TOOL_CALLS] [{"name": "now", "arguments": {}}]', [("now", {})])],
    "MistralArguments": [('[TOOL_CALLS]get_weather{"city": "Oslo"}', [("get_weather", {"city": "Oslo"})])],
    "Lfm2": [
        (
            "<|tool_call_start|>[ write_note( text = 'it\\'s \\x41\\u00e9\\U0001F5FC' ,) ]<|tool_call_end|>",
            [("write_note", {"text": "it's Aé🗼"})],
        ),
    ],
    "Phi4Mini": [
        (
            '<|tool_call|>[{"type":"function","name":"get_weather","arguments":{"city":"Oslo"}}]<|/tool_call|>',
            [("get_weather", {"city": "Oslo"})],
        ),
    ],
    "Gemma4": [
        (
            '<|tool_call>call:add{xs:[ 1, 2 ], round:True}<tool_call|>',
            [("add", {"xs": [1, 2], "round": True})],
        ),
    ],
    "QwenXml": [
        (
            "<tool_call>\n<function=search>\n<parameter=q>12</parameter>\n"
            "<parameter=limit>\n null \n</parameter>\n</function>\n</tool_call>",
            [("search", {"q": "12", "limit": None})],
        ),
    ],
}


def id_of(number):
    return f"call{number:05}"


def messages(calls):
    calls = [
        {"id": id_of(i), "type": "function", "function": {"name": name, "arguments": arguments}}
        for i, (name, arguments) in enumerate(calls)
    ]
    return [{"role": "user", "content": "u"}, {"role": "assistant", "content": "", "tool_calls": calls}]


def rendered(folder, name, calls, pattern):
    template = environment.from_string((folder / f"{name}.jinja").read_text())
    text = template.render(messages=messages(calls), bos_token="<s>", eos_token="</s>", tools=None)
    return re.search(pattern, text, re.S).group(1)


def case(text, calls, with_id=False):
    calls = [
        {"name": name, "arguments": arguments} | ({"id": id_of(i)} if with_id else {})
        for i, (name, arguments) in enumerate(calls)
    ]
    return {"text": text, "calls": calls}


def from_templates(folder):
    notations = {
        "Hermes": ("qwen3", r"(<tool_call>.*</tool_call>)", False),
        "QwenXml": ("qwen3.5", r"(<tool_call>.*</tool_call>)", False),
        "Llama3": ("llama-3.2", r"assistant<\|end_header_id\|>\n\n(.*)<\|eot_id\|>", False),
        "MistralList": ("mistral-nemo", r"(\[TOOL_CALLS\].*)</s>", True),
        "MistralCallId": ("mistral-small-3.2", r"(\[TOOL_CALLS\].*)</s>", True),
        "MistralArguments": ("ministral-3", r"(\[TOOL_CALLS\].*)</s>", False),
        "Gemma4": ("gemma4", r"(<\|tool_call>.*<tool_call\|>)", False),
    }
    for notation, (name, pattern, with_id) in notations.items():
        cases = []
        for calls in CALLS:
            if notation == "Llama3":
                for call in calls:
                    cases.append(case(rendered(folder, name, [call], pattern), [call]))
            else:
                cases.append(case(rendered(folder, name, calls, pattern), calls, with_id))
        yield notation, cases
    for name in ["qwen2.5", "granite-4.0"]:
        for calls in CALLS:
            text = rendered(folder, name, calls, r"(<tool_call>.*</tool_call>)")
            assert text == rendered(folder, "qwen3", calls, r"(<tool_call>.*</tool_call>)")


def from_cards():
    cases = []
    for text, calls in zip(LFM2, CALLS, strict=True):
        parsed = [
            (call.func.id, {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords})
            for call in ast.parse(text, mode="eval").body.elts
        ]
        assert parsed == calls, (parsed, calls)
        cases.append(case(f"<|tool_call_start|>{text}<|tool_call_end|>", calls))
    yield "Lfm2", cases
    lists = [
        (json.dumps([{"name": n, "arguments": a} for n, a in calls], ensure_ascii=False), calls) for calls in CALLS
    ]
    yield "Phi4Mini", [case(f"<|tool_call|>{text}<|/tool_call|>", calls) for text, calls in lists]
    yield "Granite3", [case(f"<|tool_call|>{text}", calls) for text, calls in lists]


def main():
    folder = pathlib.Path(sys.argv[1])
    notations = dict(from_templates(folder)) | dict(from_cards())
    tools = [
        {"name": n, "description": n, "parameters": {"type": "object", "properties": p, "required": r}}
        for n, p, r in TOOLS
    ]
    data = {
        "tools": tools,
        "notations": {
            name: {"cases": cases, "variants": [case(*variant) for variant in VARIANTS.get(name, [])]}
            for name, cases in notations.items()
        },
    }
    path = pathlib.Path(__file__).with_name("tool_calls.json")
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
