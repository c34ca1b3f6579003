"""The Merkle tree is that of Certificate Transparency, and only true proofs hold."""

from bayesdf.ledger import merkle

CT_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_are_those_of_the_certificate_transparency_reference() -> None:
    leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in CT_LEAVES]
    assert [merkle.root(leaves[:size]).hex() for size in range(9)] == CT_ROOTS
    assert [node.hex() for node in merkle.inclusion_path(leaves, 0)][:2] == [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    ]


def test_every_inclusion_proof_holds_and_no_other() -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(20)]
    for size in range(1, 21):
        root = merkle.root(leaves[:size])
        for index in range(size):
            path = merkle.inclusion_path(leaves[:size], index)
            assert merkle.included(leaves[index], index, size, path, root)
            wrong = [(leaves[index - 1], index, size, path), (leaves[index], (index + 1) % size, size, path)]
            wrong += [(leaves[index], index, size, [*path, root]), (leaves[index], size, size, path)]
            wrong += [(leaves[index], index, size, path[:-1])] if path else []
            wrong += [(leaves[index], index, size, [root, *path[1:]])] if path else []
            if size > 1:
                assert not any(merkle.included(*arguments, root) for arguments in wrong)
            assert not merkle.included(leaves[index], index, size, path, leaves[index - 1]) or size == 1


def test_every_consistency_proof_holds_and_no_other() -> None:
    leaves = [merkle.leaf_hash(bytes([number])) for number in range(20)]
    other = [merkle.leaf_hash(b"another"), *leaves[1:]]
    for second in range(1, 21):
        new = merkle.root(leaves[:second])
        for first in range(1, second + 1):
            old = merkle.root(leaves[:first])
            path = merkle.consistency_path(leaves[:second], first)
            assert merkle.consistent(first, second, path, old, new)
            assert not merkle.consistent(first, second, path, merkle.root(other[:first]), new)
            assert not merkle.consistent(first, second, path, old, merkle.root(other[:second]))
            assert not merkle.consistent(first, second, [*path, old], old, new)
            if path:
                assert not merkle.consistent(first, second, path[:-1], old, new)
                assert not merkle.consistent(first, second, [new, *path[1:]], old, new)
