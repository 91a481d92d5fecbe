"""Whether the tree of an LMDB file is whole, found without LMDB.

LMDB trusts its file: a wrong page number or length in it ends the process with a signal, and no error can be caught. So
before a file of an earlier run is opened, every page of its two trees (the entries, and the list of free pages) is read
here: it must have the right kind, order and bounds, and no page may be used twice. What entries hold is not read; that
has checksums of its own. 2.6 million entries take a few seconds.

The format is that of data version 1, which LMDB has had since 2011; a file of another version counts as damaged.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pillsnap.data.store.layout import DamagedEntryError

MAGIC, DATA_VERSION = 0xBEEFC0DE, 1
PAGE_HEADER = struct.Struct("<QHHHH")  # number, -, flags, end of the node offsets, begin of the nodes
META = struct.Struct("<IIQQ")  # magic, version, address, map size
TREE = struct.Struct("<IHHQQQQQ")  # page size or -, flags, depth, branch, leaf, overflow pages, entries, root
META_END = struct.Struct("<QQ")  # last page, transaction
NODE = struct.Struct("<HHHH")  # low and high half of the size (or page number), flags (or its upper part), key size
BRANCH, LEAF = 0x01, 0x02
ON_OTHER_PAGES = 0x01  # flag of a node: the value lies on pages of its own
NO_ROOT = 2**64 - 1
MAX_DEPTH = 32
NUMBER = struct.Struct("<Q")


@dataclass(frozen=True)
class Tree:
    """One of the trees of a file."""

    depth: int
    num_entries: int
    root: int


class LmdbFile:
    """A `data.mdb` that is open for checking."""

    def __init__(self, descriptor: int) -> None:
        """Read which trees it has.

        Raises:
            DamagedEntryError: It is no such file.
            OSError: It cannot be read.
        """
        self._descriptor = descriptor
        head = os.pread(descriptor, PAGE_HEADER.size + META.size + TREE.size, 0)
        _must(len(head) == PAGE_HEADER.size + META.size + TREE.size, "it is too short")
        self.page_bytes: int = TREE.unpack_from(head, PAGE_HEADER.size + META.size)[0]
        _must(self.page_bytes in (4096, 8192, 16384, 32768, 65536), f"its pages have {self.page_bytes} bytes")
        metas = [self._read_meta(number) for number in (0, 1)]
        self.free_tree, self.main_tree, self.last_page, self.transaction = max(metas, key=lambda meta: meta[3])
        num_pages = os.fstat(descriptor).st_size // self.page_bytes
        _must(self.last_page < 2**44, f"its last page is {self.last_page}")
        self._is_used = np.zeros(min(self.last_page + 1, num_pages), np.bool_)
        self._is_used[:2] = True

    def keys(self, key_bytes: int, most_value_bytes: int) -> list[bytes]:
        """Check everything, and return the keys of the entries in order.

        Args:
            key_bytes: What every key has.
            most_value_bytes: What no value exceeds.

        Raises:
            DamagedEntryError: Something is wrong.
            OSError: The file cannot be read.
        """
        keys = self._walk(self.main_tree, key_bytes, most_value_bytes)
        _must(all(map(bytes.__lt__, keys, keys[1:])), "its keys are not in order")
        self._check_free_pages()
        return keys

    def _read_meta(self, number: int) -> tuple[Tree, Tree, int, int]:
        data = self._page(number)
        magic, version, _, _ = META.unpack_from(data, PAGE_HEADER.size)
        _must(magic == MAGIC and version == DATA_VERSION, f"meta page {number} is no such page")
        position = PAGE_HEADER.size + META.size
        trees = []
        for _ in range(2):
            _, flags, depth, _, _, _, entries, root = TREE.unpack_from(data, position)
            _must(flags in (0, 0x08) and depth <= MAX_DEPTH, f"meta page {number} names an odd tree")
            trees.append(Tree(depth, entries, root))
            position += TREE.size
        last_page, transaction = META_END.unpack_from(data, position)
        return trees[0], trees[1], last_page, transaction

    def _page(self, number: int, count: int = 1) -> bytes:
        data = os.pread(self._descriptor, self.page_bytes * count, number * self.page_bytes)
        _must(len(data) == self.page_bytes * count, f"it ends before page {number + count - 1}")
        return data

    def _use(self, first: int, count: int = 1) -> None:
        _must(first > 0 and first + count <= len(self._is_used), f"page {first} lies outside of it")
        _must(not self._is_used[first : first + count].any(), f"page {first} is used twice")
        self._is_used[first : first + count] = True

    def _walk(self, tree: Tree, key_bytes: int, most_value_bytes: int) -> list[bytes]:
        if tree.root == NO_ROOT:
            _must(tree.num_entries == 0, "a tree has entries but no root")
            return []
        keys: list[bytes] = []
        pending = [(tree.root, 1, b"")]  # pages still to be looked at, the leftmost last
        while pending:
            number, depth, least = pending.pop()
            self._use(number)
            data = self._page(number)
            offsets = self._node_offsets(data, number, LEAF if depth == tree.depth else BRANCH)
            if depth < tree.depth:
                children = self._children(data, offsets, key_bytes, least)
                pending += [(page, depth + 1, key) for page, key in reversed(children)]
                continue
            found = self._leaf(data, offsets, key_bytes, most_value_bytes)
            # A branch names the least key that may lie below it; a search relies on that.
            _must(not keys or not found or keys[-1] < least <= found[0] or least == b"", f"page {number} is misplaced")
            keys += found
        _must(len(keys) == tree.num_entries, f"it has {len(keys)} entries of {tree.num_entries}")
        return keys

    def _node_offsets(self, data: bytes, number: int, kind: int) -> NDArray[np.uint16]:
        own_number, _, flags, lower, upper = PAGE_HEADER.unpack_from(data)
        is_sound = own_number == number and flags & 0x0F == kind and PAGE_HEADER.size < lower <= upper <= len(data)
        _must(is_sound and lower % 2 == 0, f"page {number} is no page of its tree")
        offsets = np.frombuffer(data, "<u2", (lower - PAGE_HEADER.size) // 2, PAGE_HEADER.size)
        _must(bool((offsets >= upper).all() and (offsets <= len(data) - NODE.size).all()), f"page {number} is torn")
        return offsets

    def _children(
        self, data: bytes, offsets: NDArray[np.uint16], key_bytes: int, least: bytes
    ) -> list[tuple[int, bytes]]:
        children = []
        for index, offset in enumerate(offsets.tolist()):
            low, high, upper, key_size = NODE.unpack_from(data, offset)
            key = data[offset + NODE.size : offset + NODE.size + key_size]
            is_first = index == 0  # its key is never looked at
            _must(len(key) == key_size and (is_first or key_size == key_bytes), "a branch has an odd key")
            children.append((low | high << 16 | upper << 32, least if is_first else key))
        return children

    def _leaf(self, data: bytes, offsets: NDArray[np.uint16], key_bytes: int, most_value_bytes: int) -> list[bytes]:
        keys = []
        for offset in offsets.tolist():
            low, high, flags, key_size = NODE.unpack_from(data, offset)
            size, begin = low | high << 16, offset + NODE.size + key_size
            _must(key_size == key_bytes and flags in (0, ON_OTHER_PAGES), "a leaf has an odd entry")
            _must(size <= most_value_bytes, f"a value has {size} bytes")
            stored = NUMBER.size if flags else size
            _must(begin + stored <= len(data), "an entry lies outside of its page")
            if flags:
                self._use(NUMBER.unpack_from(data, begin)[0], self._num_pages(size))
            keys.append(data[begin - key_size : begin])
        return keys

    def _num_pages(self, value_bytes: int) -> int:
        return (PAGE_HEADER.size - 1 + value_bytes) // self.page_bytes + 1

    def _check_free_pages(self) -> None:
        """Look whether the free pages are free; LMDB writes over them without asking."""
        for value in self._free_lists():
            numbers = np.frombuffer(value[: len(value) // NUMBER.size * NUMBER.size], "<u8").astype(np.uint64)
            _must(len(numbers) > 0 and int(numbers[0]) < len(numbers), "a list of free pages is too short")
            free = numbers[1 : int(numbers[0]) + 1]
            _must(bool((free >= 2).all() and (free <= self.last_page).all()), "a free page lies outside of it")
            free = free[free < len(self._is_used)]  # one that was never written may lie beyond the file's end
            is_single = len(np.unique(free)) == len(free)
            _must(is_single and not self._is_used[free].any(), "a page is both free and used")
            self._is_used[free] = True

    def _free_lists(self) -> list[bytes]:
        tree, lists = self.free_tree, []
        pending = [] if tree.root == NO_ROOT else [(tree.root, 1)]
        while pending:
            number, depth = pending.pop()
            self._use(number)
            data = self._page(number)
            offsets = self._node_offsets(data, number, LEAF if depth == tree.depth else BRANCH)
            if depth < tree.depth:
                pending += [(page, depth + 1) for page, _ in self._children(data, offsets, NUMBER.size, b"")]
                continue
            lists += [self._free_list(data, offset) for offset in offsets.tolist()]
        _must(len(lists) == tree.num_entries, f"it has {len(lists)} lists of free pages of {tree.num_entries}")
        return lists

    def _free_list(self, data: bytes, offset: int) -> bytes:
        low, high, flags, key_size = NODE.unpack_from(data, offset)
        size, begin = low | high << 16, offset + NODE.size + key_size
        _must(key_size == NUMBER.size and flags in (0, ON_OTHER_PAGES), "a list of free pages is odd")
        _must(begin + (NUMBER.size if flags else size) <= len(data), "a list of free pages lies outside of its page")
        _must(NUMBER.unpack_from(data, offset + NODE.size)[0] <= self.transaction, "a list is from the future")
        if not flags:
            return data[begin : begin + size]
        first, count = NUMBER.unpack_from(data, begin)[0], self._num_pages(size)
        self._use(first, count)
        return self._page(first, count)[PAGE_HEADER.size : PAGE_HEADER.size + size]


def check_lmdb_file(path: Path, key_bytes: int, most_value_bytes: int) -> list[bytes]:
    """Return the keys of an LMDB file in order, after looking whether LMDB may open it.

    Args:
        path: A `data.mdb` that no process has open.
        key_bytes: What every key has.
        most_value_bytes: What no value exceeds.

    Raises:
        DamagedEntryError: It is damaged.
        OSError: It cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return LmdbFile(descriptor).keys(key_bytes, most_value_bytes)
    finally:
        os.close(descriptor)


def _must(holds: bool, text: str) -> None:
    if not holds:
        raise DamagedEntryError(text)
