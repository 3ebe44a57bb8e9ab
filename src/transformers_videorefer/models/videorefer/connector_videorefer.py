"""The spatial-temporal convolution (STC) connector: patch features of a video in, scene tokens out."""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from transformers_videorefer.models.videorefer.configuration_videorefer import VideoReferConfig


class VideoReferChannelLayerNorm(nn.LayerNorm):
    """Layer norm over the channels of `(batch, channels, height, width)` maps, in float32.

    As under autocast, norms and the sums of residual and branch stay float32 in half-precision models: eight blocks
    that round them each time cost a third of the bfloat16 accuracy of the whole model.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalise over dimension 1; the result is float32."""
        hidden_states = hidden_states.permute(0, 2, 3, 1).float()
        normalised = F.layer_norm(
            hidden_states, self.normalized_shape, self.weight.float(), self.bias.float(), self.eps
        )
        return normalised.permute(0, 3, 1, 2)


class VideoReferSqueezeExcitation(nn.Module):
    """Gate every channel by a two-layer network over the channel means."""

    def __init__(self, channels: int, squeezed_channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeezed_channels, kernel_size=1)
        self.fc2 = nn.Conv2d(squeezed_channels, channels, kernel_size=1)
        self.activation = nn.SiLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Scale `hidden_states` of shape `(batch, channels, height, width)`."""
        gate = hidden_states.mean(dim=(2, 3), keepdim=True)
        gate = self.fc2(self.activation(self.fc1(gate)))
        return hidden_states * gate.sigmoid()


class VideoReferShortcut(nn.Module):
    """Projected residual of a block whose input and output widths differ."""

    def __init__(self, in_channels: int, out_channels: int, eps: float):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.norm = VideoReferChannelLayerNorm(out_channels, eps=eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(batch, in_channels, height, width)` to `(batch, out_channels, height, width)`."""
        return self.norm(self.conv(hidden_states.to(self.conv.weight.dtype)))


class VideoReferConnectorBlock(GradientCheckpointingLayer):
    """RegNet bottleneck: 1x1, depthwise 3x3, squeeze-excitation, 1x1, each normalised over channels."""

    # The published connector passes 1e-6, but the library it is built with replaces it by its own 1e-5
    # (1e-6 would move scene tokens by 3e-4).
    norm_eps = 1e-5

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)
        self.norm1 = VideoReferChannelLayerNorm(out_channels, eps=self.norm_eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, groups=out_channels, bias=False)
        self.norm2 = VideoReferChannelLayerNorm(out_channels, eps=self.norm_eps)
        # The squeeze width follows the INPUT of the block, so the first block's differs from the others'.
        self.squeeze_excitation = VideoReferSqueezeExcitation(out_channels, round(in_channels / 4))
        self.conv3 = nn.Conv2d(out_channels, out_channels, kernel_size=1, bias=False)
        self.norm3 = VideoReferChannelLayerNorm(out_channels, eps=self.norm_eps)
        self.shortcut = (
            nn.Identity()
            if in_channels == out_channels
            else VideoReferShortcut(in_channels, out_channels, eps=self.norm_eps)
        )
        self.activation = nn.SiLU()

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map `(batch, in_channels, height, width)` to float32 `(batch, out_channels, height, width)`."""
        dtype = self.conv1.weight.dtype
        residual = self.shortcut(hidden_states)
        hidden_states = self.activation(self.norm1(self.conv1(hidden_states.to(dtype))))
        hidden_states = self.activation(self.norm2(self.conv2(hidden_states.to(dtype))))
        hidden_states = self.squeeze_excitation(hidden_states.to(dtype))
        hidden_states = self.norm3(self.conv3(hidden_states))
        return self.activation(hidden_states + residual)


class VideoReferSTCConnector(nn.Module):
    """STC connector of VideoLLaMA 2.1, as VideoRefer uses it (VideoRefer, section 3.2.1).

    Per frame a stage of RegNet bottlenecks, then one 3-D convolution that joins neighbouring frames and patches, a
    second stage per joined frame, and a GELU network into the width of the language model.

    Args:
        config ([`VideoReferConfig`]): Uses `vision_config.hidden_size`, `text_config.hidden_size`,
            `connector_depth`, `connector_mlp_depth`, `connector_downsample` and `num_frames`.
    """

    def __init__(self, config: VideoReferConfig):
        super().__init__()
        vision_size, text_size = config.vision_config.hidden_size, config.text_config.hidden_size
        self.downsample = tuple(config.connector_downsample)
        self.num_image_frames = config.num_frames
        self.stage1 = self._stage(vision_size, text_size, config.connector_depth)
        self.sampler = nn.Conv3d(text_size, text_size, kernel_size=self.downsample, stride=self.downsample)
        self.stage2 = self._stage(text_size, text_size, config.connector_depth)
        self.activation = nn.SiLU()
        layers: list[nn.Module] = [nn.Linear(text_size, text_size)]
        for _ in range(config.connector_mlp_depth - 1):
            layers += [nn.GELU(), nn.Linear(text_size, text_size)]
        self.mlp = nn.Sequential(*layers)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, depth: int) -> nn.Sequential:
        return nn.Sequential(
            *(VideoReferConnectorBlock(in_channels if i == 0 else out_channels, out_channels) for i in range(depth))
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Turn patch features of videos into scene tokens.

        Args:
            features (`torch.Tensor` of shape `(num_videos, num_frames, num_patches, vision_size)`): Patch features;
                the patches of a frame form a square, row by row. Frames that are not square come as `(num_videos,
                num_frames, rows, columns, vision_size)`.

        Returns:
            `torch.Tensor` of shape `(num_videos, num_tokens, hidden_size)`: Ordered by time, then rows, then columns.
            Odd numbers of frames, rows or columns lose the last one.

        Raises:
            ValueError: If there are fewer frames or patches than the 3-D convolution joins.
        """
        if features.ndim == 4:
            grid = round(features.shape[2] ** 0.5)
            features = features.unflatten(2, (grid, grid))
        num_videos, num_frames, rows, columns, _ = features.shape
        if any(size < kernel for size, kernel in zip((num_frames, rows, columns), self.downsample, strict=True)):
            raise ValueError(
                f"The connector joins {self.downsample} (frames, rows, columns), but got {num_frames} frames of "
                f"{rows} x {columns} patches. Pass at least {self.downsample[0]} scene frames."
            )
        # (videos * frames, channels, rows, columns)
        frames = self.stage1(features.flatten(0, 1).permute(0, 3, 1, 2))
        return self._join_frames(frames.unflatten(0, (num_videos, num_frames)).transpose(1, 2))

    def forward_images(self, features: torch.Tensor) -> torch.Tensor:
        """Turn patch features of still images into scene tokens.

        The published model repeats a picture `num_frames` times. All those frames, and hence all joined frames, are
        equal, so one frame passes the first stage, one joined frame the second, and only the tokens are repeated.

        Args:
            features (`torch.Tensor` of shape `(num_images, num_patches, vision_size)`): Patch features.

        Returns:
            `torch.Tensor` of shape `(num_images, num_tokens, hidden_size)`: What [`forward`] gives for the repeated
            picture.
        """
        num_images, num_patches, channels = features.shape
        grid = round(num_patches**0.5)
        frames = self.stage1(features.reshape(num_images, grid, grid, channels).permute(0, 3, 1, 2))
        tokens = self._join_frames(frames.unsqueeze(2).expand(-1, -1, self.downsample[0], -1, -1))
        return tokens.repeat(1, self.num_image_frames // self.downsample[0], 1)

    def _join_frames(self, frames: torch.Tensor) -> torch.Tensor:
        """Map `(videos, channels, frames, grid, grid)` to `(videos, tokens, hidden_size)`."""
        dtype = self.sampler.weight.dtype
        joined = self.activation(self.sampler(frames.to(dtype)))
        num_videos, _, num_steps = joined.shape[:3]
        joined = self.stage2(joined.transpose(1, 2).flatten(0, 1))  # (videos * steps, channels, rows, columns)
        tokens = joined.flatten(2).transpose(1, 2).reshape(num_videos, num_steps * joined[0, 0].numel(), -1)
        return self.mlp(tokens.to(dtype))


__all__ = ["VideoReferSTCConnector"]
