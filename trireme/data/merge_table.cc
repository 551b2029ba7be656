// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/merge_table.h"

#include <algorithm>
#include <array>
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
  if (word.size() <= kShortWord) {
    merge_short();
  } else {
    merge_long();
  }
  return tokens_;
}

// Ranks, and the tokens they lead to, in small arrays: the search for the least rank is what costs.
void WordMerger::merge_short() {
  std::array<std::uint32_t, kShortWord> ranks;
  std::array<TokenId, kShortWord> merged;
  std::size_t size = tokens_.size();
  TokenId* const tokens = tokens_.data();
  const auto set_pair = [&](std::size_t i) {
    const MergeTable::Found found = merges_.find(tokens[i], tokens[i + 1]);
    ranks[i] = found.rank;
    merged[i] = found.merged;
  };
  for (std::size_t i = 0; i + 1 < size; ++i) {
    set_pair(i);
  }
  while (size >= 2) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < size; ++i) {
      best = ranks[i] < ranks[best] ? i : best;
    }
    if (ranks[best] == kNoRank) {
      break;
    }
    tokens[best] = merged[best];
    --size;
    for (std::size_t i = best + 1; i < size; ++i) {
      tokens[i] = tokens[i + 1];
      ranks[i - 1] = ranks[i];
      merged[i - 1] = merged[i];
    }
    if (best + 1 < size) {
      set_pair(best);
    }
    if (best > 0) {
      set_pair(best - 1);
    }
  }
  tokens_.resize(size);
}

// A heap of (rank, place of the left token) over a doubly linked list of the tokens. An entry is
// stale when the pair at its place has another rank by now; a dead token's place has none.
void WordMerger::merge_long() {
  const auto size = static_cast<std::uint32_t>(tokens_.size());
  next_.resize(size);
  previous_.resize(size);
  pairs_.resize(size);
  heap_.clear();
  for (std::uint32_t i = 0; i < size; ++i) {
    next_[i] = i + 1 < size ? i + 1 : kEnd;
    previous_[i] = i > 0 ? i - 1 : kEnd;
    pairs_[i] = i + 1 < size ? merges_.find(tokens_[i], tokens_[i + 1]) : MergeTable::Found{};
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
