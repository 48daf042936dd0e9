"""What a picture says about itself: that a model made it, from which words, seed and weights.

Odd here: the same facts stand three times in the PNG, since readers differ: as plain text chunks, as one JSON chunk
(`m3face`), and as XMP, where IPTC's `digitalSourceType` is what platforms look for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from PIL.PngImagePlugin import PngInfo

from m3face import __version__

STATEMENT = "made by a model, shows no real person"
_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
   xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">
   <Iptc4xmpExt:DigitalSourceType>{source_type}</Iptc4xmpExt:DigitalSourceType>
   <xmp:CreatorTool>{tool}</xmp:CreatorTool>
   <dc:description><rdf:Alt><rdf:li xml:lang="x-default">{description}</rdf:li></rdf:Alt></dc:description>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def png_text(facts: Mapping[str, Any]) -> PngInfo:
    """The text chunks of a generated face; `facts` are those of its `result.json`."""
    tool = f"m3face {__version__}"
    prompt = "".join(c for c in str(facts["prompt"]) if c.isprintable() or c == "\u200c")
    chunks = {
        "Software": tool,
        "Comment": STATEMENT,
        "Description": prompt,
        "m3face": json.dumps(facts, ensure_ascii=False),
        "XML:com.adobe.xmp": _XMP.format(
            source_type=_SOURCE_TYPE, tool=tool, description=escape(f"{prompt} ({STATEMENT})")
        ),
    }
    info = PngInfo()
    for key, text in chunks.items():
        info.add_itxt(key, text)
    return info
