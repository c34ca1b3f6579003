"""From images to logits of many draws: input in any form, the network split at its random tensors, one pass a draw."""
