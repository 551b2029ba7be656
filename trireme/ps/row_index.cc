// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/ps/row_index.h"

#include <algorithm>
#include <utility>

namespace trireme::ps {
namespace {

constexpr std::uint64_t kFirstSlots = 64;
// Of 16 slots, those that may be used. At 11 a search that finds looks at 2.1 slots on average
// (Knuth, The Art of Computer Programming 3, section 6.4), four of which share a cache line.
constexpr std::uint64_t kMostUsed = 11;
// Pieces that are asked of the kernel at once, at most: 64 MiB.
constexpr std::size_t kMostPieces = 64;

void put(RowSlot* slots, std::uint64_t mask, const RowSlot& slot, std::uint64_t hash) {
  std::uint64_t at = hash & mask;
  while (slots[at].number != 0) at = (at + 1) & mask;
  slots[at] = slot;
}

}  // namespace

RowIndex::RowIndex() : slot_mask_(kFirstSlots - 1) {
  memory_.emplace_back(kFirstSlots * sizeof(RowSlot));
  pieces_.push_back({.slots = reinterpret_cast<RowSlot*>(memory_.back().begin())});
  directory_ = {pieces_[0].slots};
  piece_of_ = {0};
}

std::int64_t RowIndex::bytes() const {
  const std::uint64_t slots = (pieces_.size() + (spare_ != nullptr ? 1 : 0)) * piece_slots();
  return static_cast<std::int64_t>(slots * sizeof(RowSlot) +
                                   directory_.size() * (sizeof(RowSlot*) + sizeof(std::uint32_t)));
}

RowSlot* RowIndex::add(std::uint64_t id, std::uint64_t hash) {
  const auto piece_of = [&]() -> Piece& {
    return pieces_[piece_of_[(hash >> kSlotBits) & directory_mask_]];
  };
  // Ids are spread evenly, so that one division is enough but for strange chances.
  while ((piece_of().used + 1) * std::uint64_t{16} > kMostUsed * piece_slots()) grow(hash);
  Piece& piece = piece_of();
  std::uint64_t at = hash & slot_mask_;
  while (piece.slots[at].number != 0) at = (at + 1) & slot_mask_;
  ++piece.used;
  piece.slots[at] = {.id = id};
  return &piece.slots[at];
}

void RowIndex::grow(std::uint64_t hash) {
  if (slot_mask_ + 1 < std::uint64_t{1} << kSlotBits) return double_first_piece();
  const std::uint64_t place = (hash >> kSlotBits) & directory_mask_;
  if (std::uint64_t{1} << pieces_[piece_of_[place]].depth == directory_.size()) double_directory();
  divide((hash >> kSlotBits) & directory_mask_);
}

void RowIndex::double_first_piece() {
  Piece& piece = pieces_[0];
  const std::uint64_t slots = 2 * piece_slots();
  PageMemory memory(slots * sizeof(RowSlot));
  auto* const to = reinterpret_cast<RowSlot*>(memory.begin());
  for (std::uint64_t i = 0; i < piece_slots(); ++i) {
    const RowSlot& slot = piece.slots[i];
    if (slot.number != 0) put(to, slots - 1, slot, index_hash(slot.id));
  }
  memory_[0] = std::move(memory);
  slot_mask_ = slots - 1;
  piece.slots = to;
  directory_[0] = to;
}

void RowIndex::double_directory() {
  const std::size_t size = directory_.size();
  directory_.reserve(2 * size);
  piece_of_.reserve(2 * size);
  for (std::size_t i = 0; i < size; ++i) {
    directory_.push_back(directory_[i]);
    piece_of_.push_back(piece_of_[i]);
  }
  directory_mask_ = 2 * size - 1;
}

RowSlot* RowIndex::new_slots() {
  if (num_unused_ == 0) {
    const std::size_t pieces = std::clamp<std::size_t>(pieces_.size(), 1, kMostPieces);
    memory_.emplace_back(pieces * piece_slots() * sizeof(RowSlot));
    unused_ = reinterpret_cast<RowSlot*>(memory_.back().begin());
    num_unused_ = pieces;
  }
  --num_unused_;
  return std::exchange(unused_, unused_ + piece_slots());
}

void RowIndex::divide(std::uint64_t place) {
  pieces_.reserve(pieces_.size() + 1);
  if (spare_ == nullptr) spare_ = new_slots();
  RowSlot* const one = new_slots();
  RowSlot* const zero = std::exchange(spare_, nullptr);

  const std::uint32_t number = piece_of_[place];
  Piece& old = pieces_[number];
  const std::uint64_t bit = std::uint64_t{1} << old.depth;
  Piece with_zero{.slots = zero, .depth = old.depth + 1},
      with_one{.slots = one, .depth = old.depth + 1};
  for (std::uint64_t i = 0; i < piece_slots(); ++i) {
    const RowSlot& slot = old.slots[i];
    if (slot.number == 0) continue;
    const std::uint64_t hash = index_hash(slot.id);
    Piece& to = ((hash >> kSlotBits) & bit) != 0 ? with_one : with_zero;
    put(to.slots, slot_mask_, slot, hash);
    ++to.used;
  }
  spare_ = old.slots;
  std::fill_n(spare_, piece_slots(), RowSlot{});
  pieces_[number] = with_zero;
  const auto number_of_one = static_cast<std::uint32_t>(pieces_.size());
  pieces_.push_back(with_one);
  for (std::uint64_t i = place & (bit - 1); i < directory_.size(); i += bit) {
    const bool is_one = (i & bit) != 0;
    piece_of_[i] = is_one ? number_of_one : number;
    directory_[i] = is_one ? one : zero;
  }
}

}  // namespace trireme::ps
