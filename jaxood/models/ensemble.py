"""Ensembles: independently seeded copies of a model, evaluated by one program."""

import jax

from jaxood import compilation
from jaxood.density import DensityModel, builder


@builder
def ensemble(model: DensityModel, members: int) -> DensityModel:
    """Make an ensemble of independently seeded copies of a model, one ``vmap``-ped program.

    Args:
        model: a `DensityModel`.
        members: number of copies, M.

    Returns:
        A `DensityModel` whose variables have a leading axis M. Its ``log_prob`` is ``(M, n)``:
        all members see the same images and the same noise. Its ``sample`` is ``(M, n, h, w, c)``.
    """

    @compilation.jit
    def init(key, x):
        return jax.vmap(model.init, (0, None))(jax.random.split(key, members), x)

    def log_prob(variables, x, **options):
        return jax.vmap(lambda member: model.log_prob(member, x, **options))(variables)

    def sample(variables, key, n, *, temperature=1.0):
        def draw(member, key):
            return model.sample(member, key, n, temperature=temperature)

        return jax.vmap(draw)(variables, jax.random.split(key, members))

    return DensityModel(init, log_prob, sample)
