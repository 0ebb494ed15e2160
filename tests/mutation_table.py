"""One wrong line of the library after another, and the tests that ought to notice it."""

from typing import NamedTuple


class Mutation(NamedTuple):
    """One wrong line.

    Attributes:
        what: the fault, in words.
        file: file of the library, below jaxood/.
        old: text that is in the file exactly once.
        new: text in its place.
        tests: arguments of pytest, of files below tests/.
    """

    what: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = [
    # ------------------------------------------------------------------------------------- RealNVP
    Mutation(
        "masks never alternate",
        "models/realnvp.py",
        "mask if i % 2 == 0 else 1 - mask",
        "mask",
        "models/test_architecture.py -k couplings",
    ),
    Mutation(
        "the inverse shifts after it scales",
        "models/realnvp.py",
        "x = (x - shift) * jnp.exp(-log_scale)",
        "x = x * jnp.exp(-log_scale) - shift",
        "models/test_realnvp.py -k inverse",
    ),
    Mutation(
        "the slope of the logit knows no alpha",
        "models/realnvp.py",
        "jnp.log((1 - 2 * ALPHA) / 256)",
        "jnp.log(1 / 256)",
        "models/test_realnvp.py -k change_of_variables",
    ),
    Mutation(
        "the other half of the channels is factored out",
        "models/realnvp.py",
        "kept, factored_out = jnp.split(x, 2, axis=-1)",
        "factored_out, kept = jnp.split(x, 2, axis=-1)",
        "models/test_architecture.py models/test_realnvp.py -k couplings or inverse",
    ),
    Mutation(
        "networks do not widen after the squeeze",
        "models/realnvp.py",
        "self.squeezed = couplings(3, 2 * self.width)",
        "self.squeezed = couplings(3, self.width)",
        "models/test_architecture.py -k realnvp",
    ),
    Mutation(
        "samples take the square root of the temperature",
        "models/realnvp.py",
        "z = temperature * jax.random.normal(key, (n, h, w, c))",
        "z = temperature**0.5 * jax.random.normal(key, (n, h, w, c))",
        "models/test_realnvp.py -k temperature",
    ),
    Mutation(
        "a coupling's network sees what the coupling changes",
        "models/realnvp.py",
        "net(mask * x, train=train)",
        "net(x, train=train)",
        "models/test_realnvp.py -k log_det",
    ),
    # -------------------------------------------------------------------------------------- layers
    Mutation(
        "residual blocks are always in evaluation mode",
        "nn/layers.py",
        "BatchNorm(use_running_average=not train, relu=True)(h)",
        "BatchNorm(use_running_average=True, relu=True)(h)",
        "models/test_realnvp.py -k mode",
    ),
    Mutation(
        "ReLU before BatchNorm",
        "nn/layers.py",
        "h = BatchNorm(use_running_average=not train, relu=True)(h)",
        "h = BatchNorm(use_running_average=not train)(nn.relu(h))",
        "nn/test_layers.py -k residual",
    ),
    Mutation(
        "no residual connection",
        "nn/layers.py",
        "return x + h",
        "return h",
        "nn/test_layers.py -k residual",
    ),
    Mutation(
        "the squeeze orders patches by columns",
        "nn/layers.py",
        "x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5)",
        "x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)",
        "nn/test_layers.py -k squeeze",
    ),
    # --------------------------------------------------------------------------------- likelihoods
    Mutation(
        "level 0 does not take the lower tail",
        "nn/likelihoods.py",
        "jnp.where(level > 0, lower, 0)",
        "lower",
        "nn/test_likelihoods.py -k masses",
    ),
    Mutation(
        "levels are 2/256 wide",
        "nn/likelihoods.py",
        "log_width = jnp.log(2 / 255) - log_scale",
        "log_width = jnp.log(2 / 256) - log_scale",
        "nn/test_likelihoods.py -k masses",
    ),
    Mutation(
        "blue takes green's coefficient for red",
        "nn/likelihoods.py",
        "first = i * (i - 1) // 2",
        "first = 0",
        "nn/test_likelihoods.py -k channel",
    ),
    Mutation(
        "coefficients are not bounded",
        "nn/likelihoods.py",
        "return logits, rest[..., :c], log_scales, jnp.tanh(rest[..., 2 * c :])",
        "return logits, rest[..., :c], log_scales, rest[..., 2 * c :]",
        "nn/test_likelihoods.py -k channel",
    ),
    # ------------------------------------------------------------------ dequantization and its keys
    Mutation(
        "without a key, a level's lower edge",
        "density.py",
        "noise = 0.5 if key is None",
        "noise = 0.0 if key is None",
        "test_density.py",
    ),
    Mutation(
        "even multipliers in the hash of an image",
        "density.py",
        "(flat.shape[1],), jnp.uint32) | 1",
        "(flat.shape[1],), jnp.uint32) & ~jnp.uint32(1)",
        "test_density.py -k key",
    ),
    # ------------------------------------------------------------- statistics of a batch, Jacobians
    Mutation(
        "moments by the other weight of the running average",
        "nn/batch_stats.py",
        "leaf / (1 - BATCH_NORM_MOMENTUM)",
        "leaf / BATCH_NORM_MOMENTUM",
        "experiments/test_proposition1.py -k moments",
    ),
    Mutation(
        "running statistics move by the old value's weight",
        "nn/batch_stats.py",
        "BATCH_NORM_MOMENTUM * old + (1 - BATCH_NORM_MOMENTUM) * new",
        "(1 - BATCH_NORM_MOMENTUM) * old + BATCH_NORM_MOMENTUM * new",
        "models/test_nrm.py -k training_mode",
    ),
    Mutation(
        "an image's own Jacobian leaves out the way through its mates",
        "nn/jacobian.py",
        "lambda image: f(x.at[j].set(image))[j]",
        "lambda image: f(image[None])[0]",
        "experiments/test_proposition1.py -k log_det",
    ),
    # -------------------------------------------------------------------------------- convolutions
    Mutation(
        "the adjoint flips rows alone",
        "nn/trilinear.py",
        "adjoint = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)",
        "adjoint = jnp.flip(kernel, 0).swapaxes(2, 3)",
        "nn/test_convolution.py -k values_and_derivatives",
    ),
    Mutation(
        "the kernel's gradient leaves the strides out",
        "nn/trilinear.py",
        "rhs_dilation=geometry.strides",
        "rhs_dilation=(1, 1)",
        "nn/test_convolution.py -k values_and_derivatives",
    ),
    Mutation(
        "an ensemble's axis is folded into the wrong one",
        "nn/trilinear.py",
        "free[1 - dims.index(None)]",
        "free[dims.index(None)]",
        "nn/test_convolution.py -k batching",
    ),
    # ----------------------------------------------------------------------------------------- VAE
    Mutation(
        "half of the posterior's entropy",
        "models/vae.py",
        "kl = 0.5 * (mean**2 + scale**2 - 1) - jnp.log(scale)",
        "kl = 0.5 * (mean**2 + scale**2 - 1 - jnp.log(scale))",
        "models/test_vae.py -k bound_falls",
    ),
    Mutation(
        "no ReLU before the decoder's last layer",
        "models/vae.py",
        "x = nn.relu(self.conv_transpose(8 * self.width, (5, 5), padding=2)(x))",
        "x = self.conv_transpose(8 * self.width, (5, 5), padding=2)(x)",
        "models/test_vae.py -k relu",
    ),
    Mutation(
        "the temperature acts on the pixels as well",
        "models/vae.py",
        "return categorical_sample(pixel_key, logits)",
        "return categorical_sample(pixel_key, logits, temperature)",
        "models/test_vae.py -k temperature",
    ),
    # ---------------------------------------------------------------------------------- PixelCNN++
    Mutation(
        "a pixel sees the one to its right",
        "models/pixelcnn/network.py",
        "left = jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1]",
        "left = jnp.pad(x, ((0, 0), (0, 0), (0, 1), (0, 0)))[:, :, 1:]",
        "models/test_pixelcnn.py -k depends",
    ),
    Mutation(
        "the gate is a hyperbolic tangent",
        "models/pixelcnn/layers.py",
        "return x + h * nn.sigmoid(gate)",
        "return x + h * nn.tanh(gate)",
        "models/test_pixelcnn.py -k gated",
    ),
    Mutation(
        "long skips join blocks of the same number, not of the same depth",
        "models/pixelcnn/network.py",
        "skips = jnp.flip(states if level < self.levels - 1 else states[:-1], axis=0)",
        "skips = states if level < self.levels - 1 else states[:-1]",
        "models/test_pixelcnn.py -k depends",
    ),
    # ---------------------------------------------------------------------------------------- Glow
    Mutation(
        "couplings start by halving",
        "models/glow.py",
        "log_scale = nn.log_sigmoid(scale + 2)",
        "log_scale = nn.log_sigmoid(scale)",
        "models/test_glow.py -k coupling",
    ),
    Mutation(
        "the log-determinant of one pixel",
        "models/glow.py",
        "return y, x.shape[1] * x.shape[2] * log_scale.sum()",
        "return y, log_scale.sum()",
        "models/test_glow.py -k change_of_variables",
    ),
    Mutation(
        "the prior's deviation with the wrong sign",
        "models/glow.py",
        "(norm.logpdf(noise) - log_std).sum((1, 2, 3))",
        "(norm.logpdf(noise) + log_std).sum((1, 2, 3))",
        "models/test_glow.py -k change_of_variables",
    ),
    # ----------------------------------------------------------------------------------------- NRM
    Mutation(
        "the mean is folded into the bias with the wrong sign",
        "models/nrm/folded.py",
        'params[norm]["bias"] - statistics[norm]["mean"] * gain',
        'params[norm]["bias"] + statistics[norm]["mean"] * gain',
        "models/test_nrm.py -k identities",
    ),
    Mutation(
        "a template at every pixel is not divided by their number",
        "models/nrm/chain.py",
        "weights[y][:, None, None] / (h * w), (len(y), h, w, c)",
        "weights[y][:, None, None], (len(y), h, w, c)",
        "models/test_nrm.py -k identities",
    ),
    Mutation(
        "max-pools begin at the corner of the image",
        "models/nrm/max_pool.py",
        "low = max(0, (count - 1) * stride + size - length) // 2",
        "low = 0",
        "models/test_nrm_max_pool.py -k winner",
    ),
    Mutation(
        "the negativity of the image counts",
        "models/nrm/losses.py",
        "sum(mean(jnp.minimum(rendered, 0) ** 2) for rendered in h[1:])",
        "sum(mean(jnp.minimum(rendered, 0) ** 2) for rendered in h)",
        "models/test_nrm_losses.py -k terms",
    ),
    # -------------------------------------------------------------------------------------- scores
    Mutation(
        "companions are drawn again for each ratio",
        "scores/batch_norm.py",
        "groups = -(-n // size)",
        "groups, companions = -(-n // size), rng.permutation(m)",
        "scores/test_batch_norm.py scores/test_scores.py -k companions or paired",
    ),
    Mutation(
        "the images judged are their own mates",
        "models/mates_only.py",
        "mates = jnp.stack([jnp.delete(own, i, axis=0).ravel() for i in range(folds)])",
        "mates = own",
        "experiments/test_proposition1.py -k mates or statistics",
    ),
    Mutation(
        "members of an ensemble get blocks of a batch, not images in turn",
        "train/losses.py",
        "batches = batch.reshape(-1, members, *batch.shape[1:]).swapaxes(0, 1)",
        "batches = batch.reshape(members, -1, *batch.shape[1:])",
        "models/test_ensemble.py -k train",
    ),
    Mutation(
        "Theorem 2 without its half",
        "scores/nrm/statistics.py",
        "return error / 2 + latent(measurement, reduction=reduction, above=layer)",
        "return error + latent(measurement, reduction=reduction, above=layer)",
        "scores/test_nrm.py -k measurement",
    ),
]
