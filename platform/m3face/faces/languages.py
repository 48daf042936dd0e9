"""The twelve languages, by ISO 639-1, with the three-letter codes of the papers' columns and of NLLB/Seamless."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Language:
    """`code` is ISO 639-1, `code3` ISO 639-3 as in M3CelebA's `captions_eng`; `rtl` is the direction of writing."""

    code: str
    code3: str
    name: str
    endonym: str
    rtl: bool = False


LANGUAGES: dict[str, Language] = {
    lang.code: lang
    for lang in (
        Language(code="en", code3="eng", name="English", endonym="English"),
        Language(code="fr", code3="fra", name="French", endonym="Français"),
        Language(code="de", code3="deu", name="German", endonym="Deutsch"),
        Language(code="it", code3="ita", name="Italian", endonym="Italiano"),
        Language(code="es", code3="spa", name="Spanish", endonym="Español"),
        Language(code="pt", code3="por", name="Portuguese", endonym="Português"),
        Language(code="fa", code3="pes", name="Persian", endonym="فارسی", rtl=True),
        Language(code="ar", code3="arb", name="Arabic", endonym="العربية", rtl=True),
        Language(code="zh", code3="cmn", name="Chinese", endonym="中文"),
        Language(code="ja", code3="jpn", name="Japanese", endonym="日本語"),
        Language(code="hi", code3="hin", name="Hindi", endonym="हिन्दी"),
        Language(code="ru", code3="rus", name="Russian", endonym="Русский"),
    )
}

CODE_BY_CODE3: dict[str, str] = {lang.code3: lang.code for lang in LANGUAGES.values()}
