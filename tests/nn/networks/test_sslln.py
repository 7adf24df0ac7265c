"""The networks: the paper's counts, layer by layer, shapes, and what each of them can see."""

import pytest
import torch

from cardiacreg_nn.networks.baseline_networks import build_network
from cardiacreg_nn.networks.slice_unet import with_neighbours
from cardiacreg_nn.networks.sslln import (
    SSLLN,
    NetworkConfig,
    by_slice,
    count_parameters,
    enlarge,
    fold_normalisation,
)

SMALL = NetworkConfig(slices=4, encoder=(4, 4, 6, 6, 8), side=4, fused=6)


@pytest.fixture(scope="module")
def paper():
    return SSLLN()


class TestThePaper:
    @pytest.mark.parametrize("slices, count", [(80, 3_574_720), (64, 3_559_936), (60, 3_556_240)])
    def test_the_number_of_parameters_is_published(self, slices, count):
        assert count_parameters(SSLLN(NetworkConfig(slices=slices))) == count

    def test_the_number_of_parameters_of_every_part(self, paper):
        encoder = [count_parameters(block) for block in paper.blocks]
        assert encoder == [13_888, 13_952, 92_544, 369_408, 1_476_096]
        sides = [count_parameters(side) for side in paper.sides]
        assert sides == [4_672, 18_528, 68_704, 267_360, 1_057_888]
        assert count_parameters(paper.fuse) == 92_288 + 36_992
        assert count_parameters(paper.structure_head) == 26_000
        assert count_parameters(paper.landmark_head) == 36_400

    def test_fifteen_convolutions_lead_from_image_to_features(self, paper):
        layers = [*paper.blocks.modules(), *paper.fuse.modules()]
        assert sum(isinstance(layer, torch.nn.Conv2d) for layer in layers) == 15

    def test_kernels_of_the_enlargement_grow_with_its_factor(self, paper):
        kernels = [
            layer.kernel_size
            for layer in paper.modules()
            if isinstance(layer, torch.nn.ConvTranspose2d)
        ]
        assert kernels == [(3, 3), (7, 7), (15, 15), (31, 31)]


class TestShapes:
    @pytest.mark.parametrize("kind", ["sslln", "unet2d", "fcn2d", "fcn3d", "unet3d"])
    def test_every_network_gives_classes_by_slice(self, kind):
        found = build_network(kind, SMALL).eval()(torch.rand(2, 4, 32, 48))
        assert found.structures.shape == (2, 5, 4, 32, 48)
        if kind in ("sslln", "fcn2d"):
            assert found.landmarks.shape == (2, 7, 4, 32, 48)
        else:
            assert found.landmarks is None

    def test_coordinates_can_be_regressed(self):
        config = NetworkConfig(4, encoder=(4, 4, 6, 6, 8), landmark_head="coordinates")
        assert SSLLN(config).eval()(torch.rand(2, 4, 32, 32)).landmarks.shape == (2, 6, 3)

    def test_channels_of_a_head_run_slice_by_slice(self):
        channels = torch.arange(3 * 5).view(1, 15, 1, 1).float()
        found = by_slice(channels, 5)
        for k in range(3):
            for c in range(5):
                assert found[0, c, k, 0, 0] == k * 5 + c

    @pytest.mark.parametrize("factor", [1, 2, 4, 8, 16])
    def test_enlargement_is_exact(self, factor):
        assert enlarge(2, factor)(torch.rand(1, 2, 3, 5)).shape == (1, 2, 3 * factor, 5 * factor)

    @pytest.mark.parametrize("shape", [(1, 4, 30, 32), (4, 32, 32), (1, 5, 32, 32)])
    def test_a_stack_of_another_shape_is_refused(self, shape):
        with pytest.raises(ValueError, match=r"needs \(N, S, H, W\)|made for 4"):
            SSLLN(SMALL)(torch.rand(shape))

    def test_impossible_configurations_are_refused(self):
        with pytest.raises(ValueError, match="five encoder widths"):
            NetworkConfig(encoder=(1, 2))
        with pytest.raises(ValueError, match="landmark_head"):
            NetworkConfig(landmark_head="points")
        with pytest.raises(ValueError, match="needs one of"):
            build_network("vgg", SMALL)


class TestWhatIsSeen:
    """Whether a slice's prediction depends on another slice."""

    @pytest.mark.parametrize(
        "kind, sees",
        [
            ("sslln", True),
            ("unet2d", True),
            ("fcn2d", False),
            ("fcn3d", True),
            ("unet3d", True),
        ],
    )
    def test_other_slices(self, kind, sees):
        torch.manual_seed(0)
        network = build_network(kind, SMALL).eval()
        stack = torch.rand(1, 4, 32, 32)
        changed = stack.clone()
        changed[:, 3] = 1 - changed[:, 3]
        with torch.no_grad():
            first, second = network(stack).structures, network(changed).structures
        assert torch.equal(first[:, :, 0], second[:, :, 0]) is not sees


class TestSliceUNet:
    @pytest.fixture
    def network(self):
        torch.manual_seed(0)
        return build_network("unet2d", SMALL).eval()

    def test_slices_that_were_not_acquired_are_background(self, network):
        stack = torch.rand(2, 4, 32, 32)
        stack[0, 0], stack[1, 2:] = 0, 0
        with torch.no_grad():
            found = network(stack).structures
        assert (found[0, :, 0].argmax(0) == 0).all() and (found[1, :, 2:].argmax(0) == 0).all()
        assert found[0, 0, 1].std() > 0

    def test_a_stack_alone_is_seen_as_among_others(self, network):
        stack = torch.rand(3, 4, 32, 32)
        stack[1, 3] = 0
        with torch.no_grad():
            together = network(stack).structures
            alone = torch.cat([network(each[None]).structures for each in stack])
        assert torch.allclose(together, alone, atol=1e-4)

    def test_an_empty_stack_is_no_error(self, network):
        assert torch.isfinite(network(torch.zeros(1, 4, 32, 32)).structures).all()

    def test_neighbours_are_the_slice_below_the_slice_and_the_slice_above(self):
        stack = torch.arange(1.0, 4.0).view(1, 3, 1, 1, 1)
        near = with_neighbours(stack)[0, :, :, 0, 0]
        assert near.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0]]


@pytest.mark.parametrize("kind", ["sslln", "unet2d", "fcn2d", "fcn3d", "unet3d"])
def test_folded_networks_predict_the_same_without_normalisation(kind):
    torch.manual_seed(0)
    network, stack = build_network(kind, SMALL), torch.rand(2, 4, 32, 32)
    for _ in range(3):
        network.train()(torch.rand(2, 4, 32, 32))  # statistics that are not those of the start
    folded = fold_normalisation(network)
    norms = torch.nn.BatchNorm2d | torch.nn.BatchNorm3d
    assert not any(isinstance(layer, norms) for layer in folded.modules())
    assert any(isinstance(layer, norms) for layer in network.modules())
    with torch.inference_mode():
        ours, wanted = folded(stack).structures, network.eval()(stack).structures
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_agrees_with_the_cpu():
    torch.manual_seed(0)
    network, stack = SSLLN(SMALL).eval(), torch.rand(1, 4, 32, 32)
    with torch.no_grad():
        here = network(stack).structures
        there = network.cuda()(stack.cuda()).structures.cpu()
    assert torch.allclose(here, there, atol=1e-3)
