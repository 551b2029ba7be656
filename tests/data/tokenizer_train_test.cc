// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>

#include "tests/data/texts.h"
#include "trireme/base/error.h"
#include "trireme/data/split.h"
#include "trireme/data/tokenizer.h"

namespace trireme {
namespace {

// Recounts every pair before each merge.
std::vector<std::string> train_naively(const std::vector<std::string>& texts,
                                       const TokenizerTrainOptions& options) {
  std::vector<std::string> tokens;
  for (int byte = 0; byte < 256; ++byte) {
    tokens.emplace_back(1, static_cast<char>(byte));
  }
  tokens.emplace_back("<|endoftext|>");
  std::set<std::string> known(tokens.begin(), tokens.end() - 1);
  std::vector<std::vector<std::size_t>> words;
  for (const std::string& text : texts) {
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = word_end(text, begin);
      words.emplace_back();
      for (; begin < end; ++begin) {
        words.back().push_back(static_cast<unsigned char>(text[begin]));
      }
    }
  }
  while (static_cast<std::int64_t>(tokens.size()) < options.vocab_size) {
    std::map<std::pair<std::size_t, std::size_t>, std::int64_t> counts;
    for (const auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (!known.contains(tokens[word[i]] + tokens[word[i + 1]])) {
          ++counts[{word[i], word[i + 1]}];
        }
      }
    }
    // The map is in order of ids, so the first of the largest wins.
    const auto best =
        std::max_element(counts.begin(), counts.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < options.min_pair_count) {
      break;
    }
    const auto [left, right] = best->first;
    for (auto& word : words) {
      for (std::size_t i = 0; i + 1 < word.size(); ++i) {
        if (word[i] == left && word[i + 1] == right) {
          word[i] = tokens.size();
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
      }
    }
    tokens.push_back(tokens[left] + tokens[right]);
    known.insert(tokens.back());
  }
  return tokens;
}

std::vector<std::string> train(const std::vector<std::string>& texts,
                               const TokenizerTrainOptions& options) {
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const Tokenizer tokenizer = train_tokenizer(views, options);
  std::vector<std::string> tokens;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    tokens.emplace_back(tokenizer.token_bytes(id));
  }
  return tokens;
}

RC_GTEST_PROP(TokenizerTrain, LearnsWhatTheNaiveTrainerLearns, ()) {
  const auto letters =
      *rc::gen::elementOf(std::vector<std::string>{"a", "ab", "abc ", "abcdef  \n"});
  const auto texts = *rc::gen::container<std::vector<std::string>>(
      *rc::gen::inRange<std::size_t>(1, 4),
      rc::gen::container<std::string>(*rc::gen::inRange<std::size_t>(1, 120),
                                      rc::gen::elementOf(letters)));
  const TokenizerTrainOptions options{.vocab_size = *rc::gen::inRange<std::int64_t>(257, 320),
                                      .min_pair_count = *rc::gen::inRange<std::int64_t>(1, 4)};
  RC_ASSERT(train(texts, options) == train_naively(texts, options));
}

RC_GTEST_PROP(TokenizerTrain, LearnsTheSameFromTextOfEveryKind, ()) {
  const std::vector<std::string> texts = {*testing::text() + "x", *testing::text()};
  const TokenizerTrainOptions options{.vocab_size = 300};
  RC_ASSERT(train(texts, options) == train_naively(texts, options));
}

TEST(TokenizerTrain, TiesGoToTheSmallerIds) {
  // Six pairs, each twice.
  const std::vector<std::string> tokens = train({"dcba dcba"}, {.vocab_size = 258});
  ASSERT_EQ(tokens.size(), 258U);
  EXPECT_EQ(tokens[257], "ba");
}

TEST(TokenizerTrain, StopsWhenNothingIsLeftToMerge) {
  EXPECT_EQ(train({"abc"}, {.vocab_size = 9000, .min_pair_count = 1}).size(), 259U);
  EXPECT_EQ(train({"abc"}, {.vocab_size = 9000, .min_pair_count = 2}).size(), 257U);
}

TEST(TokenizerTrain, RefusesWhatCannotBe) {
  EXPECT_THROW(train({"abc"}, {.vocab_size = 256}), ConfigError);
  EXPECT_THROW(train({"abc"}, {.vocab_size = 300, .min_pair_count = 0}), ConfigError);
  EXPECT_THROW(train({"", ""}, {.vocab_size = 300}), DataError);
  EXPECT_THROW(train({}, {.vocab_size = 300}), DataError);
}

}  // namespace
}  // namespace trireme
