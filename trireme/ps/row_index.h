// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowIndex: which row has an id, and how many steps it took. Internal to the tables.
//
// Extendible hashing (Fagin et al., "Extendible hashing: a fast access method for dynamic files",
// TODS 1979): a directory over some bits of the hash says which piece an id is in, and a piece is a
// hash table of fixed size with open addressing and linear probing. A piece that is too full
// divides in two by one more bit; nothing else is touched but for the directory, which doubles when
// no bit is left: 12 bytes for each piece. A small index is one piece, which doubles up to that
// size.
//
//   hash    [ not used ][ directory: depth bits ][ slot: 16 bits ]
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "trireme/ps/page_memory.h"

namespace trireme::ps {

// SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
// OOPSLA 2014): another function than the one that shares ids among slices (slices.h), so that the
// ids of a slice lie everywhere in its index.
constexpr std::uint64_t index_hash(std::uint64_t id) {
  std::uint64_t h = id + 0x9E3779B97F4A7C15U;
  h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
  h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
  return h ^ (h >> 31);
}

struct RowSlot {
  std::uint64_t id = 0;
  std::uint32_t number = 0;  // row + 1; 0: the slot is free
  std::uint32_t steps = 0;
};

class RowIndex {
 public:
  RowIndex();

  // The slot of the id, or nullptr. hash: index_hash(id), everywhere. Until the next add().
  RowSlot* find(std::uint64_t id, std::uint64_t hash) const {
    RowSlot* const slots = directory_[(hash >> kSlotBits) & directory_mask_];
    for (std::uint64_t at = hash;; ++at) {
      RowSlot& slot = slots[at & slot_mask_];
      if (slot.number == 0) return nullptr;
      if (slot.id == id) return &slot;
    }
  }
  // Brings the place where find() begins into the cache.
  void prefetch(std::uint64_t hash) const {
    __builtin_prefetch(&directory_[(hash >> kSlotBits) & directory_mask_][hash & slot_mask_]);
  }
  // A slot for an id that find() does not find; the caller gives it a number. Throws
  // std::bad_alloc, and is then as before.
  RowSlot* add(std::uint64_t id, std::uint64_t hash);

  std::int64_t bytes() const;

 private:
  static constexpr unsigned kSlotBits = 16;
  struct Piece {
    RowSlot* slots = nullptr;
    std::uint32_t used = 0;
    unsigned depth = 0;  // bits of the directory that all its ids have in common
  };

  std::uint64_t piece_slots() const { return slot_mask_ + 1; }
  void grow(std::uint64_t hash);
  void double_first_piece();
  void double_directory();
  void divide(std::uint64_t place);
  RowSlot* new_slots();

  std::uint64_t slot_mask_;
  std::uint64_t directory_mask_ = 0;
  std::vector<RowSlot*> directory_;
  std::vector<std::uint32_t> piece_of_;  // by place in the directory
  std::vector<Piece> pieces_;
  RowSlot* spare_ = nullptr;  // the slots of a piece, free
  std::vector<PageMemory> memory_;
  RowSlot* unused_ = nullptr;  // what is left of the last of it, in pieces
  std::size_t num_unused_ = 0;
};

}  // namespace trireme::ps
