// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_index.h"

#include <utility>

#include "trireme/base/check.h"

namespace trireme::ps {
namespace {

constexpr int kLog2FirstPlaces = 8;  // a page

// Places moved for each new id. Growth begins with 5/8 of n places taken, and ends n/16 ids later
// at the most: the new array is a third full then.
constexpr std::uint64_t kMovedForEach = 16;

constexpr std::uint64_t most_taken(std::uint64_t places) { return places / 8 * 5; }

}  // namespace

RowIndex::Array::Array(int log2_places)
    : pages(sizeof(Slot) << log2_places, LargePages::Use::kAllOver),
      slots(static_cast<Slot*>(pages.data())),
      mask((std::uint64_t{1} << log2_places) - 1),
      shift(64 - log2_places) {}

RowIndex::RowIndex() : now_(kLog2FirstPlaces) {}

RowIndex::Slot* RowIndex::find_among_new(std::uint64_t hash, std::uint64_t id) const {
  Slot* const slot = now_.probe(hash, id);
  return slot->taken() ? slot : nullptr;
}

RowIndex::Slot* RowIndex::insert(std::uint64_t id, std::uint32_t row) {
  Slot* const slot = now_.probe(hash_of(id), id);
  *slot = {.id = id, .row_above = row + 1, .steps = 0};
  ++taken_;
  return slot;
}

void RowIndex::make_room(std::uint32_t count) {
  if (old_.slots != nullptr) move(kMovedForEach * count);
  while (taken_ + count > most_taken(now_.places())) {
    if (old_.slots != nullptr) move(old_.places());
    begin_growth();
    move(kMovedForEach * count);
  }
}

void RowIndex::begin_growth() {
  Array larger(64 - now_.shift + 1);
  old_ = std::exchange(now_, std::move(larger));
  first_ = 0;
  while (old_.slots[first_].taken()) ++first_;
  moved_ = 0;
}

// Goes on after that many places at the next free one, where no id's way leads across.
void RowIndex::move(std::uint64_t places) {
  const std::uint64_t wanted = moved_ + places;
  while (moved_ <= old_.mask) {
    const Slot& slot = old_.slots[(first_ + moved_) & old_.mask];
    if (slot.taken()) {
      *now_.probe(hash_of(slot.id), slot.id) = slot;
    } else if (moved_ >= wanted) {
      return;
    }
    ++moved_;
  }
  old_ = Array();
}

std::int64_t RowIndex::memory_bytes() const {
  return static_cast<std::int64_t>(now_.pages.bytes() + old_.pages.bytes());
}

}  // namespace trireme::ps
