// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

// tokenizer.json, held against Hugging Face's own package (tools/make_tokenizer_golden.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"
#include "trireme/data/tokenizer.h"

namespace trireme {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

const std::string kGolden = TRIREME_SOURCE_DIR "/tests/golden/";

std::vector<TokenId> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<TokenId> ids;
  tokenizer.encode(text, ids);
  return ids;
}

// {file, the golden cases' key}
class GoldenTokenizer : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(GoldenTokenizer, EncodesAsHuggingFaceDoes) {
  const auto [file, key] = GetParam();
  const Tokenizer tokenizer = Tokenizer::load(kGolden + file);
  const json golden = json::parse(read_text(kGolden + "tokenizer_cases.json"));
  ASSERT_GT(golden["cases"].size(), 100U);
  for (const json& one : golden["cases"]) {
    const auto text = one["text"].get<std::string>();
    EXPECT_EQ(encode(tokenizer, text), one[key].get<std::vector<TokenId>>()) << one["text"];
    EXPECT_EQ(tokenizer.decode(encode(tokenizer, text)), text);
  }
}

TEST_P(GoldenTokenizer, IsTheSameAfterSavingAndLoading) {
  const Tokenizer tokenizer = Tokenizer::load(kGolden + GetParam().first);
  const TemporaryFolder folder;
  tokenizer.save((folder / "tokenizer.json").string());
  const Tokenizer again = Tokenizer::load((folder / "tokenizer.json").string());
  EXPECT_EQ(again.hash(), tokenizer.hash());
  EXPECT_EQ(again.to_json(), tokenizer.to_json());
  EXPECT_EQ(again.end_of_text(), tokenizer.end_of_text());
  ASSERT_EQ(again.vocab_size(), tokenizer.vocab_size());
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    EXPECT_EQ(again.token_bytes(id), tokenizer.token_bytes(id));
  }
}

INSTANTIATE_TEST_SUITE_P(TokenizerJson, GoldenTokenizer,
                         ::testing::Values(std::pair{"tokenizer_hf.json", "ids_hf"},
                                           std::pair{"tokenizer_gpt2.json", "ids_gpt2"}),
                         [](const auto& one) { return std::string(one.param.second); });

TEST(TokenizerJson, KnowsTheEndOfText) {
  EXPECT_EQ(Tokenizer::load(kGolden + "tokenizer_hf.json").end_of_text(), 0U);
  EXPECT_EQ(Tokenizer::load(kGolden + "tokenizer_gpt2.json").end_of_text(), 538U);
}

TEST(TokenizerJson, DifferentTokenizersHaveDifferentHashes) {
  const std::string a = Tokenizer::load(kGolden + "tokenizer_hf.json").hash();
  const std::string b = Tokenizer::load(kGolden + "tokenizer_gpt2.json").hash();
  EXPECT_NE(a, b);
  EXPECT_EQ(a.size(), 16U);
  EXPECT_EQ(a.find_first_not_of("0123456789abcdef"), std::string::npos);
}

TEST(TokenizerJson, ATrainedTokenizerComesBack) {
  const std::vector<std::string_view> texts = {
      "\"quoted\" \\ back \x01\xff \u00a0 caf\xc3\xa9 caf\xc3\xa9"};
  const Tokenizer trained = train_tokenizer(texts, {.vocab_size = 290, .min_pair_count = 1});
  const Tokenizer again = Tokenizer::parse(trained.to_json(), "memory");
  EXPECT_EQ(again.hash(), trained.hash());
  EXPECT_EQ(encode(again, texts[0]), encode(trained, texts[0]));
}

TEST(TokenizerJson, SavingIsWholeOrNotAtAll) {
  const Tokenizer tokenizer = Tokenizer::load(kGolden + "tokenizer_hf.json");
  EXPECT_THROW(tokenizer.save("/nonexistent/tokenizer.json"), DataError);
  const TemporaryFolder folder;
  write_text(folder / "tokenizer.json", "old");
  std::filesystem::create_directory(folder / "tokenizer.json.tmp");  // stands in the way
  EXPECT_THROW(tokenizer.save((folder / "tokenizer.json").string()), DataError);
  EXPECT_EQ(read_text(folder / "tokenizer.json"), "old");
}

struct Refusal {
  const char* name;
  std::function<void(json&)> change;
  const char* message;
};

class RefusedTokenizer : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedTokenizer, SaysWhatDiffers) {
  json file = json::parse(read_text(kGolden + "tokenizer_hf.json"));
  ASSERT_NO_THROW(Tokenizer::parse(file.dump(), "given.json"));
  GetParam().change(file);
  try {
    Tokenizer::parse(file.dump(), "given.json");
    FAIL() << "expected: " << GetParam().message;
  } catch (const DataError& error) {
    EXPECT_THAT(error.what(), HasSubstr(GetParam().message));
    EXPECT_THAT(error.what(), HasSubstr("given.json"));
  }
}

INSTANTIATE_TEST_SUITE_P(
    TokenizerJson, RefusedTokenizer,
    ::testing::Values(
        Refusal{"Unigram", [](json& f) { f["model"]["type"] = "Unigram"; },
                "model of type \"Unigram\""},
        Refusal{"WordPiece",
                [](json& f) {
                  f["model"] = {{"type", "WordPiece"}};
                },
                "WordPiece"},
        Refusal{"NoModel", [](json& f) { f.erase("model"); }, "no object 'model'"},
        Refusal{"AnArray", [](json& f) { f = json::array(); }, "is not a tokenizer.json"},
        Refusal{"Normalizer",
                [](json& f) {
                  f["normalizer"] = {{"type", "NFC"}};
                },
                "has a normalizer"},
        Refusal{"Metaspace",
                [](json& f) {
                  f["pre_tokenizer"] = {{"type", "Metaspace"}};
                },
                "has Metaspace as pre_tokenizer"},
        Refusal{"NoPreTokenizer", [](json& f) { f["pre_tokenizer"] = nullptr; },
                "has nothing as pre_tokenizer"},
        Refusal{"AnotherPattern",
                [](json& f) {
                  f["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", json::array()}};
                },
                "has Sequence as pre_tokenizer"},
        Refusal{"PrefixSpace", [](json& f) { f["pre_tokenizer"]["add_prefix_space"] = true; },
                "add_prefix_space"},
        Refusal{"NoPattern", [](json& f) { f["pre_tokenizer"]["use_regex"] = false; }, "use_regex"},
        Refusal{"Decoder",
                [](json& f) {
                  f["decoder"] = {{"type", "WordPiece"}};
                },
                "has WordPiece as decoder"},
        Refusal{"PostProcessor",
                [](json& f) {
                  f["post_processor"] = {{"type", "TemplateProcessing"}};
                },
                "has TemplateProcessing as post_processor"},
        Refusal{"Dropout", [](json& f) { f["model"]["dropout"] = 0.1; }, "model.dropout 0.1"},
        Refusal{"ByteFallback", [](json& f) { f["model"]["byte_fallback"] = true; },
                "byte_fallback"},
        Refusal{"IgnoreMerges", [](json& f) { f["model"]["ignore_merges"] = true; },
                "ignore_merges"},
        Refusal{"Suffix", [](json& f) { f["model"]["end_of_word_suffix"] = "</w>"; },
                "end_of_word_suffix"},
        Refusal{"Truncation",
                [](json& f) {
                  f["truncation"] = {{"max_length", 8}};
                },
                "truncation"},
        Refusal{"NoEndOfText", [](json& f) { f["added_tokens"] = json::array(); }, "<|endoftext|>"},
        Refusal{"PlainAddedToken", [](json& f) { f["added_tokens"][0]["special"] = false; },
                "not special"},
        Refusal{"AByteIsMissing",
                [](json& f) {
                  f["model"]["vocab"]["zzzz"] = f["model"]["vocab"]["!"];
                  f["model"]["vocab"].erase("!");
                },
                "byte 0x21"},
        Refusal{"NotByteLevel", [](json& f) { f["model"]["vocab"]["\u2581a"] = 600; }, "U+2581"},
        Refusal{"ABlankInAToken", [](json& f) { f["model"]["vocab"]["a b"] = 600; }, "U+0020"},
        Refusal{"AnEmptyToken", [](json& f) { f["model"]["vocab"][""] = 600; }, "empty token"},
        Refusal{"AnIdTwice", [](json& f) { f["model"]["vocab"]["zzzz"] = 7; },
                "id 7 to two tokens"},
        Refusal{"AGap", [](json& f) { f["model"]["vocab"]["zzzz"] = 601; }, "the id 601"},
        Refusal{"ANegativeId", [](json& f) { f["model"]["vocab"]["!"] = -1; }, "the id -1"},
        Refusal{"TwoIdsForSpecial", [](json& f) { f["added_tokens"][0]["id"] = 3; }, "two ids"},
        Refusal{"NoVocabulary", [](json& f) { f["model"].erase("vocab"); }, "no model.vocab"},
        Refusal{"NoMerges", [](json& f) { f["model"]["merges"] = 5; }, "no model.merges"},
        Refusal{"AMergeOfThree", [](json& f) { f["model"]["merges"][0] = "a b c"; }, "\"a b c\""},
        Refusal{"AMergeOfNumbers",
                [](json& f) {
                  f["model"]["merges"][0] = {1, 2};
                },
                "[1,2]"},
        Refusal{"AMergeOfNothingKnown", [](json& f) { f["model"]["merges"][0] = "zzzz a"; },
                "lacks \"zzzz\""},
        Refusal{"AMergeToNothingKnown", [](json& f) { f["model"]["merges"][0] = "z !"; },
                "lacks \"z!\""},
        Refusal{"AMergeTwice",
                [](json& f) { f["model"]["merges"].push_back(f["model"]["merges"][5]); }, "twice"}),
    [](const ::testing::TestParamInfo<Refusal>& refusal) { return refusal.param.name; });

TEST(TokenizerJson, FilesThatAreNoneAreRefused) {
  EXPECT_THROW(Tokenizer::load("/nonexistent.json"), DataError);
  EXPECT_THROW(Tokenizer::load("/"), DataError);
  EXPECT_THROW(Tokenizer::parse("", "empty"), DataError);
  EXPECT_THROW(Tokenizer::parse("{\"model\": ", "cut"), DataError);
  EXPECT_THROW(Tokenizer::parse("\xff\xfe", "bytes"), DataError);
  EXPECT_THROW(Tokenizer::parse(std::string(100000, '['), "deep"), DataError);
}

}  // namespace
}  // namespace trireme
