from experiments import batch_norm_paper
from experiments.bn_cifar import OOD as CIFAR_OOD
from experiments.bn_fashion_mnist import OOD as FASHION_OOD


def test_every_number_of_the_paper_has_a_cell():
    """Tables 2 and 5: four sets, four scores, four ratios; names that the experiments use."""
    tables = {
        ("fashion_mnist", "realnvp"): FASHION_OOD,
        ("fashion_mnist", "vae"): FASHION_OOD,
        ("cifar10", "realnvp"): CIFAR_OOD,
        ("cifar10", "pixelcnn"): CIFAR_OOD,
    }
    for (in_dist, model), sets in tables.items():
        found = batch_norm_paper.auroc(in_dist, model)
        misprinted = 4 if model == "vae" else 0  # one column of Table 5 repeats another table
        assert len(found) == 4 * (4 + 4) - misprinted
        assert {name for name, _ in found} <= set(sets)
        # Table 5 at r2 = 0.9 is Table 2's "ours", with r1 -> 0 in place of 0.1.
        for name in {name for name, _ in found}:
            assert found[name, "batch_norm_delta@0.9"] == found[name, "batch_norm_delta"]
        assert len(batch_norm_paper.bpd(in_dist, model)) == 4


def test_what_the_paper_does_not_report_is_empty():
    assert batch_norm_paper.auroc("cifar10", "vae") == {}
    assert batch_norm_paper.bpd("fashion_mnist", "pixelcnn") == {}
