// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_index.h"

#include <utility>

#include "trireme/base/check.h"

namespace trireme::ps {
namespace {

constexpr int kLog2FirstPlaces = 8;  // a page

// Places moved for each new id. Growth begins with 5/8 of n places taken, and ends n/16 ids later
// at the most, with a third of the new array taken; the old one is never fuller than 11/16.
constexpr std::uint64_t kMovedForEach = 16;

constexpr std::uint64_t most_taken(std::uint64_t places) { return places / 8 * 5; }

}  // namespace

RowIndex::Array::Array(int log2_places)
    : pages(sizeof(Slot) << log2_places, LargePages::Use::kAllOver),
      slots(static_cast<Slot*>(pages.data())),
      mask((std::uint64_t{1} << log2_places) - 1),
      shift(64 - log2_places) {}

RowIndex::RowIndex() : now_(kLog2FirstPlaces) {}

RowIndex::Slot* RowIndex::insert(std::uint64_t id, std::uint32_t row) {
  const std::uint64_t hash = hash_of(id);
  Slot* const slot = home_array(hash).probe(hash, id);
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

// Goes on after that many places to the next free one: no id whose home is before it lies behind
// it. Old places stay as they are when they are moved, so that the way to ids whose homes are the
// last of the circle may lead across its beginning; these ids are taken over at the end.
void RowIndex::move(std::uint64_t places) {
  const std::uint64_t wanted = moved_ + places;
  for (; moved_ <= old_.mask; ++moved_) {
    const Slot& slot = old_place(moved_);
    if (!slot.taken()) {
      if (moved_ >= wanted) return;
      continue;
    }
    const std::uint64_t hash = hash_of(slot.id);
    if (old_distance(hash) <= moved_) take_over(slot, hash);
  }
  for (std::uint64_t at = 0; old_place(at).taken(); ++at) {
    const std::uint64_t hash = hash_of(old_place(at).id);
    if (old_distance(hash) > at) take_over(old_place(at), hash);
  }
  old_ = Array();
}

std::int64_t RowIndex::memory_bytes() const {
  return static_cast<std::int64_t>(now_.pages.bytes() + old_.pages.bytes());
}

}  // namespace trireme::ps
