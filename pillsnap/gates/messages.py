"""What the advisor says, in Korean as the specification has it and in English."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["ko", "en"]
LANGUAGES: tuple[Language, ...] = ("ko", "en")


@dataclass(frozen=True, slots=True)
class Text:
    """One sentence in both languages; `{stage}` and the like are filled in."""

    ko: str
    en: str

    def to(self, language: Language, **values: object) -> str:
        """Return the sentence in a language."""
        return (self.ko if language == "ko" else self.en).format(**values)


def choose_language(setting: str = "auto", environment: Mapping[str, str] | None = None) -> Language:
    """Return the language to speak.

    Args:
        setting: `ko`, `en`, or `auto`: Korean where the locale is, else English.
        environment: Where the locale is looked up; None: of this process.
    """
    if setting != "auto":
        return "ko" if setting == "ko" else "en"
    variables = os.environ if environment is None else environment
    # The order in which POSIX lets them win.
    locale = next((variables[name] for name in ("LC_ALL", "LC_MESSAGES", "LANG") if variables.get(name)), "")
    return "ko" if locale.lower().startswith("ko") else "en"


TITLE = Text("🎯 Stage 평가 완료", "🎯 Stage evaluated")
SCORE = Text("📊 성능 점수: {score}", "📊 Performance score: {score}")
GATE_GO = Text("🚪 게이트: GO", "🚪 Gate: go")
GATE_NO_GO = Text("🚪 게이트: NO-GO", "🚪 Gate: no-go")
SUGGESTIONS = Text("💡 권장사항:", "💡 Suggestions:")
OPTIONS = Text("🎭 선택 옵션:", "🎭 Your options:")
PROMPT = Text("선택하세요 [1-3]: ", "Choose [1-3]: ")
NOT_MEASURED = Text("측정되지 않음", "not measured")
WANTED = Text("목표", "wanted")

ALL_MET = Text("Stage {stage} 모든 목표 달성!", "Stage {stage}: all targets met!")
SUFFICIENT = Text("Stage {stage} 충분한 성능 달성", "Stage {stage}: performance is sufficient")
BELOW = Text("Stage {stage} 성능 미달. 최적화 권장", "Stage {stage}: below target. Optimising is advised")
TOO_LOW = Text("Stage {stage} 성능이 매우 낮음", "Stage {stage}: performance is very low")
CRITICAL = Text("Stage {stage} 중단 권고: {what}", "Stage {stage}: stopping is advised: {what}")
MANDATORY = Text("Stage {stage} 필수 체크 실패: {what}", "Stage {stage}: mandatory checks did not pass: {what}")
TIME_CAP = Text(
    "Stage {stage} 시간 제한으로 종료, 파이프라인 검증 통과 (지표는 기록만 함)",
    "Stage {stage}: ended by its time limit, the pipeline is proven (figures are recorded, not required)",
)

REPEATED_OOM = Text("OOM 반복 {value}회 (허용 {most}회)", "{value} times out of memory (at most {most})")
LOSS_NOT_FINITE = Text("손실이 NaN 또는 무한대", "the loss is not finite")
CORRUPTION = Text("데이터 손상률 {value} (허용 {most})", "{value} of the data is damaged (at most {most})")

OPTIONS_ALL_MET = (
    Text("[1] Stage {next}로 진행", "[1] Go on to stage {next}"),
    Text("[2] 현재 Stage에서 추가 최적화", "[2] Optimise further at this stage"),
    Text("[3] 상세 분석 리포트 생성", "[3] Write a detailed report"),
)
OPTION_AFTER_LAST_STAGE = Text("[1] 배포로 진행", "[1] Go on to deployment")
"""In place of the first option at the last stage, which has no next one."""
OPTIONS_SUFFICIENT = (
    Text("[1] 현재 성능으로 다음 Stage 진행", "[1] Go on to the next stage with this performance"),
    Text("[2] 권장 최적화 적용 후 재시도", "[2] Apply the suggestions and try again"),
    Text("[3] 수동 하이퍼파라미터 조정", "[3] Set hyperparameters by hand"),
)
OPTIONS_BELOW = (
    Text("[1] 권장사항 적용 후 재시도", "[1] Apply the suggestions and try again"),
    Text("[2] 현재 성능으로 진행 (위험)", "[2] Go on with this performance (risky)"),
    Text("[3] 상세 디버깅 모드", "[3] Debug in detail"),
)
OPTIONS_TOO_LOW = (
    Text("[1] 강력한 최적화 적용 후 재시도", "[1] Apply strong optimisation and try again"),
    Text("[2] 아키텍처 재검토", "[2] Reconsider the architecture"),
    Text("[3] 데이터 품질 점검", "[3] Check the quality of the data"),
)
OPTIONS_CRITICAL = (
    Text("[1] 원인 해결 후 재시도", "[1] Remove the cause and try again"),
    Text("[2] 마지막 체크포인트로 복귀", "[2] Go back to the last checkpoint"),
    Text("[3] 데이터와 하드웨어 점검", "[3] Check data and hardware"),
)
OPTIONS_MANDATORY = (
    Text("[1] 실패한 체크를 해결하고 다시 확인", "[1] Mend the checks that did not pass and check again"),
    Text("[2] 현재 Stage 재학습", "[2] Train this stage again"),
    Text("[3] 상세 디버깅 모드", "[3] Debug in detail"),
)
