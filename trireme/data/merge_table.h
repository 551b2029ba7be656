// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// The merges of a byte-pair encoding and how a word is merged with them.
//
// Encoding a word: start from one token per byte; as long as some neighbouring pair has a merge,
// apply the one learned first, at its leftmost place (Sennrich et al. 2016, algorithm 1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "trireme/data/tokenizer.h"

namespace trireme {

struct Merge {
  TokenId left = 0;
  TokenId right = 0;
  TokenId merged = 0;
};

inline constexpr std::uint32_t kNoRank = 0xFFFFFFFF;

// Pair of tokens -> rank (0 is learned first) and merged token. Constant after construction; any
// thread may use it.
class MergeTable {
 public:
  struct Found {
    std::uint32_t rank = kNoRank;
    TokenId merged = 0;
  };

  // merges in order of rank, each pair once.
  explicit MergeTable(std::span<const Merge> merges);

  Found find(TokenId left, TokenId right) const {
    const std::uint64_t key = key_of(left, right);
    for (std::size_t at = slot_of(key);; at = (at + 1) & mask_) {
      const Slot& slot = slots_[at];
      if (slot.key == key || slot.found.rank == kNoRank) {
        return slot.found;
      }
    }
  }

 private:
  struct Slot {
    std::uint64_t key = ~std::uint64_t{0};
    Found found;
  };

  static std::uint64_t key_of(TokenId left, TokenId right) {
    return (std::uint64_t{left} << 32) | right;
  }
  std::size_t slot_of(std::uint64_t key) const {
    return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15) >> shift_);  // Fibonacci hashing
  }

  std::vector<Slot> slots_;  // open addressing, linear probing, at most half full
  std::size_t mask_ = 0;
  int shift_ = 0;
};

// Merges words. Holds scratch memory, so each thread has its own.
class WordMerger {
 public:
  // byte_tokens[b] is the token of the single byte b. Both must outlive the merger.
  WordMerger(const MergeTable& merges, std::span<const TokenId, 256> byte_tokens)
      : merges_(merges), byte_tokens_(byte_tokens) {}

  // The tokens of word, valid until the next call. Cost: O(n^2) with a small constant for the short
  // words of text, O(n log n) for long ones.
  std::span<const TokenId> merge(std::string_view word);

 private:
  void merge_short();
  void merge_long();

  const MergeTable& merges_;
  std::span<const TokenId, 256> byte_tokens_;
  std::vector<TokenId> tokens_;
  std::vector<MergeTable::Found> pairs_;  // of token i and the one after it
  std::vector<std::uint32_t> next_;       // merge_long's list of living tokens
  std::vector<std::uint32_t> previous_;
  std::vector<std::uint64_t> heap_;
};

}  // namespace trireme
