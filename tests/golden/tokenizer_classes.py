#!/usr/bin/env python3
"""Makes src/data/tokenizer/classes.tsv: the tokenizer classes of transformers, by whose rules each is built, and for which
model types it is the default.

    python tests/golden/tokenizer_classes.py      # needs transformers, sentencepiece

Last run with transformers 5.24.0. The second column is the class that a class is built as: one of those that
src/data/tokenizer follows, `TokenizersBackend` where a tokenizer.json is taken as it stands, `-` for all others.
"""
import inspect
from pathlib import Path

import transformers
from transformers.convert_slow_tokenizer import SLOW_TO_FAST_CONVERTERS
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

OUT = Path(__file__).resolve().parents[2] / "src/data/tokenizer/classes.tsv"
FOLLOWED = ["BertTokenizer", "RobertaTokenizer", "CLIPTokenizer", "XLMRobertaTokenizer", "CamembertTokenizer",
            "TokenizersBackend"]
OF_ROWS = {"DistilBertTokenizer": "BertTokenizer"}  # only hands its arguments on


def built_as(name):
    """The class whose __init__ builds the tokenizer `name`."""
    found = tokenizer_class_from_name(name)
    if not inspect.isclass(found):
        return None
    parents = [parent.__name__ for parent in found.__mro__]
    if "PreTrainedTokenizerBase" not in parents:
        return None
    builder = next(parent.__name__ for parent in found.__mro__ if "__init__" in parent.__dict__)
    builder = OF_ROWS.get(builder, builder)
    if builder in ("PythonBackend", "PreTrainedTokenizerBase") and found.__name__ == "PythonBackend":
        return "TokenizersBackend"  # AutoTokenizer takes that one instead
    return builder if builder in FOLLOWED else "-"


def main():
    names = {name for name in dir(transformers) if name.endswith(("Tokenizer", "Backend", "TokenizerFast"))}
    names |= set(SLOW_TO_FAST_CONVERTERS) | {name for name in TOKENIZER_MAPPING_NAMES.values() if name}
    rows = {}
    for name in sorted(name.removesuffix("Fast") for name in names):
        builder = built_as(name)
        if builder is not None or name in TOKENIZER_MAPPING_NAMES.values():
            rows[name] = (builder or "-", [t for t, c in TOKENIZER_MAPPING_NAMES.items() if c and c.removesuffix("Fast") == name])
    OUT.write_text("".join(f"{name}\t{builder}\t{' '.join(types)}\n" for name, (builder, types) in rows.items()))
    print(len(rows), "classes,", sum(builder != "-" for builder, _ in rows.values()), "of them followed")


if __name__ == "__main__":
    main()
