// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// Learning the merges of a byte-pair encoding.
//
// The texts become distinct words with counts; each word is a run of symbols in one array, linked
// to its neighbours. Every pair of neighbouring symbols has a record: its count (weighted by the
// words' counts) and the places where it stood when it arose. A step takes the pair with the
// highest count, walks its places from left to right, skips those that changed since, and joins the
// two symbols; the four neighbouring pairs gain or lose the word's count. A pair with the new
// symbol arises in this very step and only loses from then on: so its list of places is complete
// and in order, and a heap whose entries are corrected when they come up finds the next pair.
// Cost: each place is visited once per pair that arose there, O(n log n) in all for text.
#include <xxhash.h>

#include <algorithm>
#include <queue>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "trireme/base/check.h"
#include "trireme/base/error.h"
#include "trireme/data/split.h"
#include "trireme/data/tokenizer.h"
#include "trireme/data/tokenizer_impl.h"

namespace trireme {
namespace {

constexpr TokenId kEndOfTextId = 256;
constexpr TokenId kFirstMerged = 257;
constexpr std::uint32_t kEnd = 0xFFFFFFFF;

struct XxHash {
  std::size_t operator()(std::string_view bytes) const {
    return XXH3_64bits(bytes.data(), bytes.size());
  }
};

struct CountedWord {
  std::string_view bytes;
  std::int64_t count = 0;
};

// In the order of their first appearance, which decides nothing but makes runs repeatable.
std::vector<CountedWord> count_words(std::span<const std::string_view> texts) {
  std::unordered_map<std::string_view, std::uint32_t, XxHash> index;
  std::vector<CountedWord> words;
  for (const std::string_view text : texts) {
    split_words(text, [&](std::size_t begin, std::size_t end) {
      const std::string_view word = text.substr(begin, end - begin);
      const auto [at, is_new] = index.try_emplace(word, static_cast<std::uint32_t>(words.size()));
      if (is_new) {
        words.push_back({word, 0});
      }
      ++words[at->second].count;
    });
  }
  return words;
}

class MergeLearner {
 public:
  MergeLearner(const std::vector<CountedWord>& words, std::int64_t min_count);

  // Learns one merge. False when no pair is left.
  bool learn();
  TokenizerParts take_parts() { return std::move(parts_); }

 private:
  struct Pair {
    std::int64_t count = 0;
    std::vector<std::uint32_t> places;  // of the left symbol
  };
  struct HeapEntry {
    std::int64_t count;
    TokenId left, right;
    // std::priority_queue's top is the largest: highest count, then smallest ids.
    bool operator<(const HeapEntry& other) const {
      if (count != other.count) {
        return count < other.count;
      }
      return left != other.left ? left > other.left : right > other.right;
    }
  };

  static std::uint64_t key_of(TokenId left, TokenId right) {
    return (std::uint64_t{left} << 32) | right;
  }
  void add_word(const CountedWord& word);
  void add(std::uint32_t place, std::uint32_t right_place);
  void remove(std::uint32_t place, std::uint32_t right_place);
  void join(const HeapEntry& pair, TokenId merged, const std::vector<std::uint32_t>& places);
  void push(TokenId left, TokenId right, const Pair& pair);

  const std::int64_t min_count_;
  TokenizerParts parts_;
  std::unordered_set<std::string> known_;  // bytes of all tokens

  // By place: one entry for each byte of each distinct word.
  std::vector<TokenId> symbols_;
  std::vector<std::uint32_t> next_, previous_;  // kEnd at the word's ends
  std::vector<std::uint32_t> word_of_;
  std::vector<std::int64_t> word_counts_;

  std::unordered_map<std::uint64_t, Pair> pairs_;
  std::vector<std::uint64_t> new_pairs_;  // arose in the step under way
  std::priority_queue<HeapEntry> heap_;
};

MergeLearner::MergeLearner(const std::vector<CountedWord>& words, std::int64_t min_count)
    : min_count_(min_count) {
  for (std::size_t byte = 0; byte < 256; ++byte) {
    parts_.tokens.emplace_back(1, static_cast<char>(byte));
  }
  known_.insert(parts_.tokens.begin(), parts_.tokens.end());
  parts_.tokens.emplace_back(kEndOfText);
  parts_.special = {kEndOfTextId};
  parts_.end_of_text = kEndOfTextId;
  for (const CountedWord& word : words) {
    add_word(word);
  }
  for (const auto& [key, pair] : pairs_) {
    push(static_cast<TokenId>(key >> 32), static_cast<TokenId>(key), pair);
  }
  new_pairs_.clear();
}

void MergeLearner::add_word(const CountedWord& word) {
  const std::size_t begin = symbols_.size();
  const std::size_t end = begin + word.bytes.size();
  TRIREME_CHECK_LT(end, std::size_t{kEnd}, "bytes of distinct words in a tokenizer's sample");
  const auto index = static_cast<std::uint32_t>(word_counts_.size());
  word_counts_.push_back(word.count);
  for (std::size_t at = begin; at < end; ++at) {
    symbols_.push_back(static_cast<unsigned char>(word.bytes[at - begin]));
    previous_.push_back(at > begin ? static_cast<std::uint32_t>(at - 1) : kEnd);
    next_.push_back(at + 1 < end ? static_cast<std::uint32_t>(at + 1) : kEnd);
    word_of_.push_back(index);
  }
  for (std::size_t at = begin; at + 1 < end; ++at) {
    add(static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(at + 1));
  }
}

void MergeLearner::add(std::uint32_t place, std::uint32_t right_place) {
  const std::uint64_t key = key_of(symbols_[place], symbols_[right_place]);
  const auto [at, is_new] = pairs_.try_emplace(key);
  if (is_new) {
    new_pairs_.push_back(key);
  }
  at->second.count += word_counts_[word_of_[place]];
  at->second.places.push_back(place);
}

void MergeLearner::remove(std::uint32_t place, std::uint32_t right_place) {
  const auto at = pairs_.find(key_of(symbols_[place], symbols_[right_place]));
  if (at != pairs_.end()) {  // the pair of the step itself is already gone
    at->second.count -= word_counts_[word_of_[place]];
  }
}

void MergeLearner::push(TokenId left, TokenId right, const Pair& pair) {
  if (pair.count >= min_count_) {
    heap_.push({pair.count, left, right});
  }
}

void MergeLearner::join(const HeapEntry& pair, TokenId merged,
                        const std::vector<std::uint32_t>& places) {
  for (const std::uint32_t place : places) {
    const std::uint32_t right = next_[place];
    if (symbols_[place] != pair.left || right == kEnd || symbols_[right] != pair.right) {
      continue;
    }
    const std::uint32_t before = previous_[place];
    const std::uint32_t after = next_[right];
    if (before != kEnd) {
      remove(before, place);
    }
    if (after != kEnd) {
      remove(right, after);
      previous_[after] = place;
    }
    symbols_[place] = merged;
    symbols_[right] = kEnd;  // dead: equals no token
    next_[place] = after;
    if (before != kEnd) {
      add(before, place);
    }
    if (after != kEnd) {
      add(place, after);
    }
  }
}

bool MergeLearner::learn() {
  while (!heap_.empty()) {
    const HeapEntry top = heap_.top();
    heap_.pop();
    const auto found = pairs_.find(key_of(top.left, top.right));
    TRIREME_ASSERT(found != pairs_.end(), "a pair in the heap has a record");
    if (found->second.count != top.count) {
      push(top.left, top.right, found->second);
      continue;
    }
    std::string bytes = parts_.tokens[top.left] + parts_.tokens[top.right];
    const std::vector<std::uint32_t> places = std::move(found->second.places);
    // Two ways to the same bytes: the first one keeps them, this pair stays apart.
    if (!known_.insert(bytes).second) {
      continue;
    }
    pairs_.erase(found);
    const auto merged = static_cast<TokenId>(parts_.tokens.size());
    parts_.tokens.push_back(std::move(bytes));
    parts_.merges.push_back({top.left, top.right, merged});
    join(top, merged, places);
    for (const std::uint64_t key : new_pairs_) {
      push(static_cast<TokenId>(key >> 32), static_cast<TokenId>(key), pairs_.at(key));
    }
    new_pairs_.clear();
    return true;
  }
  return false;
}

}  // namespace

Tokenizer train_tokenizer(std::span<const std::string_view> texts,
                          const TokenizerTrainOptions& options) {
  return train_tokenizer(texts, options, {});
}

Tokenizer train_tokenizer(std::span<const std::string_view> texts,
                          const TokenizerTrainOptions& options,
                          const std::function<void(std::int64_t, std::int64_t)>& progress) {
  if (options.vocab_size < kFirstMerged) {
    throw_error<ConfigError>(
        "tokenizer vocab_size {} is too small; 256 bytes and the end of text need {}",
        options.vocab_size, kFirstMerged);
  }
  if (options.min_pair_count < 1) {
    throw_error<ConfigError>("tokenizer min_pair_count {} is below 1", options.min_pair_count);
  }
  const std::vector<CountedWord> words = count_words(texts);
  if (words.empty()) {
    throw_error<DataError>("the text to train a tokenizer on is empty");
  }
  MergeLearner learner(words, options.min_pair_count);
  const std::int64_t num_merges = options.vocab_size - kFirstMerged;
  for (std::int64_t merge = 0;; ++merge) {
    if (progress) {
      progress(merge, num_merges);
    }
    if (merge == num_merges || !learner.learn()) {
      break;
    }
  }
  return Tokenizer(std::make_unique<Tokenizer::Impl>(learner.take_parts(), "trained tokenizer"));
}

}  // namespace trireme
