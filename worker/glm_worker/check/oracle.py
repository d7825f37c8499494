"""The other side: transformers' own Glm4MoeForCausalLM with the first layers of a checkpoint."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glm_worker.check.states import Routing, States, Text
from glm_worker.errors import ConfigError


class Oracle:
    """A model of transformers, on one device."""

    def __init__(self, folder: Path, num_layers: int, dtype: torch.dtype, device: torch.device) -> None:
        """Load the first num_layers. Tensors of other layers are not read. Raises ConfigError where it cannot."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other projects
            transformers = _transformers()
            try:
                config = transformers.Glm4MoeConfig.from_pretrained(folder)
                config.num_hidden_layers = num_layers
                model = transformers.Glm4MoeForCausalLM.from_pretrained(folder, config=config, dtype=dtype)
            except Exception as error:  # whatever it is, it is about this checkpoint
                raise ConfigError(f"transformers cannot read {folder}: {type(error).__name__}: {error}") from error
        self._device = device
        self._model = model.eval().to(device)

    @torch.inference_mode()
    def computed(self, texts: list[Text], ours: States) -> tuple[States, States]:
        """Return what it makes of the texts by itself, and of each layer, and the head, when given our input of it."""
        alone, fed = _Kept(), _Kept()
        start = 0
        for text in texts:
            span = slice(start, start + len(text.computed))
            start = span.stop
            with self._listening(alone, None):
                logits = self._logits(text)
            alone.logits.append(logits)
            with self._listening(fed, [hidden_TD[span] for hidden_TD in ours.hidden_TD]):
                logits = self._logits(text)
            fed.logits.append(logits)
        return alone.states, fed.states

    def _logits(self, text: Text) -> Tensor:
        ids = torch.tensor([text.computed], device=self._device)
        logits: Tensor = self._model(input_ids=ids, use_cache=False, logits_to_keep=text.num_sampled).logits
        return logits[0].float().cpu()

    @contextmanager
    def _listening(self, kept: "_Kept", given_TD: list[Tensor] | None) -> Iterator[None]:
        """Keep what enters the first layer and what each returns. given_TD: what each layer, and the head, gets."""
        inner = self._model.model
        hooks = [inner.embed_tokens.register_forward_hook(lambda _, __, out: kept.add(0, out[0]))]
        for number, layer in enumerate(inner.layers):
            if given_TD is not None:
                hooks.append(layer.register_forward_pre_hook(self._give(given_TD[number])))
                if (router := getattr(layer.mlp, "gate", None)) is not None:
                    hooks.append(router.register_forward_hook(_keep_routing(kept, number)))
            hooks.append(layer.register_forward_hook(_keep(kept, number + 1)))
        if given_TD is not None:
            hooks.append(inner.norm.register_forward_pre_hook(self._give(given_TD[-1])))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _give(self, x_TD: Tensor) -> Callable[[torch.nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        def give(_: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            its, *others = args
            return (x_TD[None].to(its), *others)

        return give


class _Kept:
    """Hidden states as they come, text by text."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        self._hidden: list[list[Tensor]] = []
        self._routings: dict[int, list[Routing]] = {}

    def add(self, number: int, x_TD: Tensor) -> None:
        if number == len(self._hidden):
            self._hidden.append([])
        self._hidden[number].append(x_TD.cpu())

    def add_routing(self, number: int, routing: Routing) -> None:
        self._routings.setdefault(number, []).append(routing)

    @property
    def states(self) -> States:
        routings = [_joined(self._routings.get(number)) for number in range(len(self._hidden) - 1)]
        return States([torch.cat(parts) for parts in self._hidden], torch.cat(self.logits), routings)


def _keep(kept: _Kept, number: int) -> Callable[[torch.nn.Module, Any, Any], None]:
    return lambda _, __, out: kept.add(number, (out[0] if isinstance(out, tuple) else out)[0])


def _keep_routing(kept: _Kept, number: int) -> Callable[[torch.nn.Module, Any, Any], None]:
    def keep(router: Any, args: tuple[Any, ...], out: tuple[Tensor, Tensor, Tensor]) -> None:
        kept.add_routing(
            number, routing_of(args[0].flatten(0, -2), router.weight, router.e_score_correction_bias, out[2])
        )

    return keep


def routing_of(x_TD: Tensor, weight_ED: Tensor, bias_E: Tensor, expert_ids_TK: Tensor) -> Routing:
    """Return the choice, and how far the scores of chosen and other experts are apart.

    A logit is a sum over D: where each number of the input is off by a share of itself, at random, the logit is off by
    that share of the root of the sum of its terms' squares. The score is its sigmoid, so less moves there.
    """
    x_TD, weight_ED = x_TD.float(), weight_ED.float()
    scores_TE = (x_TD @ weight_ED.T).sigmoid()
    moved_TE = (x_TD.square() @ weight_ED.square().T).sqrt() * scores_TE * (1 - scores_TE)
    chosen_TE = scores_TE + bias_E
    is_chosen_TE = torch.zeros_like(scores_TE, dtype=torch.bool).scatter_(1, expert_ids_TK, value=True)
    lead_T = torch.full_like(scores_TE[:, 0], torch.inf)
    for expert_ids_T in expert_ids_TK.T[:, :, None]:
        gap_TE = chosen_TE.gather(1, expert_ids_T) - chosen_TE
        of_errors_TE = (moved_TE.gather(1, expert_ids_T).square() + moved_TE.square()).sqrt()
        lead_TE = (gap_TE / of_errors_TE.clamp_min(1e-30)).masked_fill(is_chosen_TE, torch.inf)
        lead_T = torch.minimum(lead_T, lead_TE.amin(dim=-1))
    return Routing(expert_ids_TK.cpu(), lead_T.cpu())


def _joined(parts: list[Routing] | None) -> Routing | None:
    if parts is None:
        return None
    return Routing(torch.cat([part.expert_ids_TK for part in parts]), torch.cat([part.lead_T for part in parts]))


def _transformers() -> Any:
    """Return the library, quiet. Imported here: it takes seconds, and may fail for a reason to tell."""
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(f"transformers cannot be imported: {error}; the worker's extra installs it") from error
    transformers.utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # it reports each tensor that it skips
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    return transformers
