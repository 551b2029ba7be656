// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// RowIndex: from a row's id to its number and its count of steps. Internal to the tables.
//
// Open addressing with linear probing: an id's home is given by the high bits of its hash, and it
// lies there or in the next places, with no free one between. A place is 16 bytes, so that most
// look-ups read one cache line. At most five eighths of the places are taken.
//
// The index grows to twice its size without stopping: a new array, which the system gives zeroed,
// that is free, stands beside the old one, and each batch of ids moves a few places. What is moved
// is a part of the circle of homes,
//
//   old:  first | moved ... | cursor: not moved yet ... | first
//
// that begins and ends at what was a free place: ids with a home in it are in the new array, all
// others in the old one, and new ids follow their homes. Neighbours in the old array are neighbours
// in the new one: moving reads and writes memory in order, and touches new pages one by one.
#pragma once

#include <cstdint>

#include "trireme/ps/large_pages.h"
#include "trireme/ps/prefetch.h"

namespace trireme::ps {

class RowIndex {
 public:
  struct Slot {
    std::uint64_t id;
    std::uint32_t row_above;  // the row's number + 1; 0: free
    std::uint32_t steps;

    bool taken() const { return row_above != 0; }
    std::uint32_t row() const { return row_above - 1; }
  };

  RowIndex();

  // Asks for the memory that find() reads first.
  void prefetch(std::uint64_t id) const {
    const std::uint64_t hash = hash_of(id);
    prefetch_line(&home_array(hash).home(hash));
  }

  // Null where the id is not there. The pointer is good until make_room().
  Slot* find(std::uint64_t id) const {
    const std::uint64_t hash = hash_of(id);
    Slot* const slot = home_array(hash).probe(hash, id);
    return slot->taken() ? slot : nullptr;
  }

  // Before each insert(), for as many as will be inserted before the next call. Grows the index,
  // or goes on with it: that is where moving happens. Throws Error without memory.
  void make_room(std::uint32_t count);
  // An id that is not there; steps are 0. make_room() was called for it.
  Slot* insert(std::uint64_t id, std::uint32_t row);

  std::int64_t memory_bytes() const;

  // The finaliser of SplitMix64 (Steele, Lea and Flood 2014): other bits than slice_of()'s.
  static constexpr std::uint64_t hash_of(std::uint64_t id) {
    std::uint64_t h = id;
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9U;
    h = (h ^ (h >> 27)) * 0x94D049BB133111EBU;
    return h ^ (h >> 31);
  }

 private:
  struct Array {
    LargePages pages;
    Slot* slots = nullptr;
    std::uint64_t mask = 0;  // the number of places, a power of two, less 1
    int shift = 0;           // 64 - its logarithm

    Array() = default;
    explicit Array(int log2_places);
    std::uint64_t places() const { return mask + 1; }
    std::uint64_t home_of(std::uint64_t hash) const { return hash >> shift; }
    Slot& home(std::uint64_t hash) const { return slots[home_of(hash)]; }
    // The id's place, or the free one where it would be put.
    Slot* probe(std::uint64_t hash, std::uint64_t id) const {
      std::uint64_t at = home_of(hash);
      while (slots[at].taken() && slots[at].id != id) at = (at + 1) & mask;
      return &slots[at];
    }
  };

  // Where an id with this hash is, or would be.
  const Array& home_array(std::uint64_t hash) const {
    if (old_.slots == nullptr) [[likely]]
      return now_;
    return old_distance(hash) < moved_ ? now_ : old_;
  }
  // Of its home in the old array, from first_ on.
  std::uint64_t old_distance(std::uint64_t hash) const {
    return (old_.home_of(hash) - first_) & old_.mask;
  }
  const Slot& old_place(std::uint64_t distance) const {
    return old_.slots[(first_ + distance) & old_.mask];
  }
  void begin_growth();
  void move(std::uint64_t places);
  void take_over(const Slot& slot, std::uint64_t hash) { *now_.probe(hash, slot.id) = slot; }

  Array now_;
  std::uint64_t taken_ = 0;  // ids, in both arrays
  // While the index grows; old_.slots is null otherwise.
  Array old_;
  std::uint64_t first_ = 0;  // a free place of old_
  std::uint64_t moved_ =
      0;  // places of old_ from first_ on; the next one is free, or all are moved
};

}  // namespace trireme::ps
