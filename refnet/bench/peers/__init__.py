"""The peers, by name."""

from refnet.bench.peer import Peer
from refnet.bench.peers import jax, numpy, onnxruntime, torch

PEERS: dict[str, Peer] = {peer.name: peer for peer in (torch.PEER, jax.PEER, onnxruntime.PEER, numpy.PEER)}
