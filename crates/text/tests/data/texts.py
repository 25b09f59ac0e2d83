"""What the small vocabularies are trained on, and what they are tested with. Written here."""

TRAINING = [
    "The quick brown fox jumps over the lazy dog. It's what the fox said: don't worry, we'll see!",
    "def main():\n    for i in range(10):\n        print(i, i ** 2)\n\n\nmain()\n",
    "Straße, Größe und Übermut; café déjà vu, naïve façade - 12345 times 678 is 8369910.",
    "日本語のテキストと中文文本 한국어 Русский текст العربية",
    "He said “hello” and she’d said HELLO WORLD, HelloWorld and helloWorld in 2024 and 2025.",
] * 4

TEXTS = [
    "",
    " ",
    "a",
    "The fox",
    " The  fox   ",
    "it's IT'S we'll WE'LL don't",
    "HelloWorld helloWORLD HTTPServer",
    "1 12 123 1234 12345",
    "tabs\tand\n\nnew lines\r\n  indented\n",
    "Größe Straße café cafe\u0301 A\u030a",
    "日本語 한국어 Русский العربية हिन्दी",
    "emoji 🚀👨‍👩‍👧 and \u0000 \u0001",
    "<|im_end|> <s> </s> <0x0A> <unk>",
    "a<tool>b <tool> c",
    "non\u00a0breaking\u2003space \u3000x",
    "((x)) == {y[0]} // z != \"q\" && !w",
    "\u2581already escaped\u2581",
]
