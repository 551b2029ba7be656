// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/merge_table.h"

#include <algorithm>
#include <bit>
#include <functional>

#include "trireme/base/check.h"

namespace trireme {
namespace {

constexpr std::size_t kShortWord = 48;  // bytes; about where the heap starts to win
constexpr std::uint32_t kEnd = 0xFFFFFFFF;

}  // namespace

MergeTable::MergeTable(std::span<const Merge> merges) {
  const std::size_t size = std::bit_ceil(std::max<std::size_t>(merges.size() * 2, 16));
  slots_.resize(size);
  mask_ = size - 1;
  shift_ = 64 - std::countr_zero(size);
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const std::uint64_t key = key_of(merges[rank].left, merges[rank].right);
    std::size_t at = slot_of(key);
    while (slots_[at].found.rank != kNoRank) {
      TRIREME_ASSERT(slots_[at].key != key, "a pair has one merge");
      at = (at + 1) & mask_;
    }
    slots_[at] = {key, {static_cast<std::uint32_t>(rank), merges[rank].merged}};
  }
}

std::span<const TokenId> WordMerger::merge(std::string_view word) {
  TRIREME_CHECK_LT(word.size(), std::size_t{kEnd}, "bytes in one word");
  tokens_.resize(word.size());
  for (std::size_t i = 0; i < word.size(); ++i) {
    tokens_[i] = byte_tokens_[static_cast<unsigned char>(word[i])];
  }
  if (word.size() >= 2) {
    pairs_.resize(word.size() - 1);
    for (std::size_t i = 0; i + 1 < word.size(); ++i) {
      pairs_[i] = merges_.find(tokens_[i], tokens_[i + 1]);
    }
    word.size() <= kShortWord ? merge_short() : merge_long();
  }
  return tokens_;
}

void WordMerger::merge_short() {
  while (!pairs_.empty()) {
    const auto best = std::min_element(
        pairs_.begin(), pairs_.end(),
        [](const MergeTable::Found& a, const MergeTable::Found& b) { return a.rank < b.rank; });
    if (best->rank == kNoRank) {
      return;
    }
    const auto at = best - pairs_.begin();
    tokens_[static_cast<std::size_t>(at)] = best->merged;
    tokens_.erase(tokens_.begin() + at + 1);
    pairs_.erase(best);
    const auto i = static_cast<std::size_t>(at);
    if (i < pairs_.size()) {
      pairs_[i] = merges_.find(tokens_[i], tokens_[i + 1]);
    }
    if (i > 0) {
      pairs_[i - 1] = merges_.find(tokens_[i - 1], tokens_[i]);
    }
  }
}

// A heap of (rank, place of the left token) over a doubly linked list of the tokens. An entry is
// stale when the pair at its place has another rank by now; a dead token's place has none.
void WordMerger::merge_long() {
  const auto size = static_cast<std::uint32_t>(tokens_.size());
  next_.resize(size);
  previous_.resize(size);
  pairs_.resize(size);  // the last token has no pair
  heap_.clear();
  for (std::uint32_t i = 0; i < size; ++i) {
    next_[i] = i + 1 < size ? i + 1 : kEnd;
    previous_[i] = i > 0 ? i - 1 : kEnd;
    if (pairs_[i].rank != kNoRank) {
      heap_.push_back((std::uint64_t{pairs_[i].rank} << 32) | i);
    }
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  const auto set_pair = [this](std::uint32_t at) {
    pairs_[at] =
        next_[at] == kEnd ? MergeTable::Found{} : merges_.find(tokens_[at], tokens_[next_[at]]);
    if (pairs_[at].rank != kNoRank) {
      heap_.push_back((std::uint64_t{pairs_[at].rank} << 32) | at);
      std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
    }
  };
  while (!heap_.empty()) {
    const auto rank = static_cast<std::uint32_t>(heap_.front() >> 32);
    const auto at = static_cast<std::uint32_t>(heap_.front());
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    if (pairs_[at].rank != rank) {
      continue;
    }
    const std::uint32_t dead = next_[at];
    tokens_[at] = pairs_[at].merged;
    pairs_[dead].rank = kNoRank;
    next_[at] = next_[dead];
    if (next_[at] != kEnd) {
      previous_[next_[at]] = at;
    }
    set_pair(at);
    if (previous_[at] != kEnd) {
      set_pair(previous_[at]);
    }
  }
  std::size_t kept = 0;
  for (std::uint32_t at = 0; at != kEnd; at = next_[at]) {
    tokens_[kept++] = tokens_[at];
  }
  tokens_.resize(kept);
}

}  // namespace trireme
