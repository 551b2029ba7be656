// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Optional;

struct ModelSettings {
  std::string kind = "gpt2";
  std::int64_t width = 64;
  bool tied = true;
  void visit(ConfigFields& f) {
    f.field("kind", kind, "architecture", {"gpt2", "llama"});
    f.field("width", width, "channels");
    f.field("tied", tied, "head shares the embedding");
  }
};

struct BatchSettings {
  std::int64_t micro_batch_size = 8;
  double clip = 1.0;
  void visit(ConfigFields& f) {
    f.field("micro_batch_size", micro_batch_size, "sequences in one micro-batch");
    f.field("clip", clip, "largest gradient norm");
  }
};

struct DataSettings {
  std::string folder = "text";
  std::vector<std::string> suffixes = {".txt"};
  BatchSettings batch;
  void visit(ConfigFields& f) {
    f.field("folder", folder, "where the text is");
    f.field("suffixes", suffixes, "files that are read");
    f.section("batch", batch, "");
  }
};

struct Settings {
  std::int64_t seed = 1;
  ModelSettings model;
  BatchSettings batch;
  DataSettings data;
  void visit(ConfigFields& f) {
    f.field("seed", seed, "");
    f.section("model", model, "the model");
    f.section("batch", batch, "");
    f.section("data", data, "");
  }
};

Settings settings_from(const std::string& text, const std::vector<std::string>& overrides = {}) {
  Settings settings;
  bind_config(ConfigTree::parse(text, "train.yaml", overrides), settings);
  return settings;
}

// The message of the ConfigError, or "accepted".
std::string refusal(const std::string& text, const std::vector<std::string>& overrides = {}) {
  try {
    settings_from(text, overrides);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Config, EmptyKeepsDefaults) {
  for (const char* text :
       {"", "\n", "# only a comment\n", "---\n", "{}", "model:\n", "model: {}\n"}) {
    const Settings settings = settings_from(text);
    EXPECT_EQ(settings.model.width, 64) << text;
    EXPECT_EQ(settings.batch.micro_batch_size, 8) << text;
    EXPECT_THAT(settings.data.suffixes, ElementsAre(".txt"));
  }
}

TEST(Config, FillsEveryTypeAtEveryDepth) {
  const Settings settings = settings_from(
      "seed: -3\n"
      "model:\n"
      "  kind: llama\n"
      "  tied: false\n"
      "data:\n"
      "  folder: 2026\n"
      "  suffixes: [a, '007', \"\"]\n"
      "  batch: {clip: 3, micro_batch_size: 9223372036854775807}\n");
  EXPECT_EQ(settings.seed, -3);
  EXPECT_EQ(settings.model.kind, "llama");
  EXPECT_FALSE(settings.model.tied);
  EXPECT_EQ(settings.model.width, 64);
  EXPECT_EQ(settings.data.folder, "2026");
  EXPECT_THAT(settings.data.suffixes, ElementsAre("a", "007", ""));
  EXPECT_EQ(settings.data.batch.clip, 3.0);
  EXPECT_EQ(settings.data.batch.micro_batch_size, std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(settings.batch.micro_batch_size, 8);
}

TEST(Config, UnknownKeyIsRefusedWithTheNearestAndItsLine) {
  EXPECT_EQ(refusal("seed: 2\n\nbatch:\n  # sizes\n  clip: 0.5\n\n  micro_bach_size: 4\n"),
            "train.yaml:7: unknown key 'batch.micro_bach_size', did you mean 'micro_batch_size'?");
  EXPECT_EQ(refusal("sede: 2\n"), "train.yaml:1: unknown key 'sede', did you mean 'seed'?");
  EXPECT_EQ(refusal("modle:\n  width: 3\n"),
            "train.yaml:1: unknown section 'modle', did you mean 'model'?");
  EXPECT_EQ(refusal("model: {zzz: 1}\n"),
            "train.yaml:1: unknown key 'model.zzz', known here: kind, width, tied.");
}

TEST(Config, HintLooksIntoOtherSections) {
  EXPECT_EQ(refusal("model:\n  micro_batch_size: 4\n"),
            "train.yaml:2: unknown key 'model.micro_batch_size', did you mean "
            "'batch.micro_batch_size'?");
  EXPECT_EQ(refusal("widht: 4\n"),
            "train.yaml:1: unknown key 'widht', did you mean 'model.width'?");
  EXPECT_EQ(refusal("model.width: 4\n"),
            "train.yaml:1: unknown key 'model.width', a dot does not open a section in a file: "
            "indent below it.");
  EXPECT_THAT(refusal("data: {batch: {clpi: 1}}"), HasSubstr("did you mean 'clip'?"));
}

TEST(Config, AllUnknownKeysAreNamedFirstInFileOrderFirst) {
  EXPECT_EQ(
      refusal("data:\n  fodler: x\nbatch:\n  clap: 1\nfoo: {bar: 1, baz: 2}\n", {"model.w=3"}),
      "train.yaml:2: unknown key 'data.fodler', did you mean 'folder'? And 3 more: "
      "'batch.clap' (train.yaml:4), 'foo' (train.yaml:5), 'model.w' (command line)");
}

TEST(Config, WrongTypesAreRefusedWithTheValue) {
  EXPECT_EQ(refusal("model:\n\n  width: wide\n"),
            "train.yaml:3: model.width wants a whole number, got 'wide'");
  EXPECT_EQ(refusal("model: {width: '64'}"),
            "train.yaml:1: model.width wants a whole number, got the text '64'");
  EXPECT_EQ(refusal("seed:\n  a: 1\n"), "train.yaml:1: seed wants a whole number, got a section");
  EXPECT_EQ(refusal("seed: [1]\n"), "train.yaml:1: seed wants a whole number, got a list");
  EXPECT_EQ(refusal("seed:\n"), "train.yaml:1: seed wants a whole number, got nothing");
  EXPECT_EQ(refusal("model: {tied: yes}"),
            "train.yaml:1: model.tied wants true or false, got 'yes'");
  EXPECT_EQ(refusal("data: {folder: }"),
            "train.yaml:1: data.folder wants text, got nothing, write \"\" for an empty one");
  EXPECT_EQ(refusal("data: {folder: [a]}"), "train.yaml:1: data.folder wants text, got a list");
  EXPECT_EQ(refusal("data: {suffixes: .cc}"),
            "train.yaml:1: data.suffixes wants a list, got '.cc', write [.cc] for a list of one");
  EXPECT_EQ(refusal("data:\n  suffixes:\n  - a\n  - [b]\n"),
            "train.yaml:4: data.suffixes[1] wants text, got a list");
}

TEST(Config, ScalarWhereASectionIsWantedIsRefused) {
  EXPECT_THAT(refusal("model: 3\n"),
              HasSubstr("train.yaml:1: model is a section of settings, got '3'"));
  EXPECT_THAT(refusal("data:\n  batch: [1]\n"),
              HasSubstr("train.yaml:2: data.batch is a section of settings, got a list"));
}

TEST(Config, WholeNumbersArePlainDigits) {
  for (const char* bad : {"1_000", "1e3", "1.0", "0x10", "017", "+5", "1,000", "12k"}) {
    EXPECT_THAT(refusal(std::string("seed: ") + bad), HasSubstr("wants a whole number, got '"))
        << bad;
  }
  EXPECT_THAT(refusal("seed: 9223372036854775808"),
              HasSubstr("between -9223372036854775808 and 9223372036854775807, got "
                        "'9223372036854775808'"));
  EXPECT_EQ(settings_from("seed: -9223372036854775808").seed,
            std::numeric_limits<std::int64_t>::min());
  EXPECT_EQ(settings_from("seed: 0").seed, 0);
}

TEST(Config, NumbersAreFinite) {
  for (const char* good : {"3", "3.", "+3.0", "3e0", "0.3e+1", "300E-2", "003"}) {
    EXPECT_EQ(settings_from(std::string("batch: {clip: ") + good + "}").batch.clip, 3.0) << good;
  }
  for (const char* bad : {"inf", "-inf", "nan", ".inf", ".nan", "infinity", "1e999", "1e-999",
                          "0x1p3", "1.0f", "+-1", "++1", "1 2", "''", "true"}) {
    EXPECT_THAT(refusal(std::string("batch: {clip: ") + bad + "}"),
                HasSubstr("train.yaml:1: batch.clip wants a "))
        << bad;
  }
}

TEST(Config, WordsOutsideTheListAreRefused) {
  EXPECT_EQ(refusal("model: {kind: gtp2}"),
            "train.yaml:1: model.kind wants one of: gpt2, llama; got 'gtp2', did you mean 'gpt2'?");
  EXPECT_EQ(refusal("model: {kind: bert}"),
            "train.yaml:1: model.kind wants one of: gpt2, llama; got 'bert'");
  EXPECT_EQ(refusal("model: {kind: [gpt2]}"),
            "train.yaml:1: model.kind wants one of: gpt2, llama; got a list");
}

// A setting that another one rules out.
struct RuledOut {
  ModelSettings model;
  void visit(ConfigFields& f) {
    f.section("model", model, "");
    f.refuse("depth", "belongs to another model");
  }
};

struct CountSettings {
  std::int64_t count = 2;
  void visit(ConfigFields& f) { f.field("count", count, "how many", {"auto", -1}); }
};

TEST(Config, AWordMayStandForANumber) {
  const auto count_of = [](const std::string& text) {
    CountSettings settings;
    bind_config(ConfigTree::parse(text, "train.yaml", {}), settings);
    return settings.count;
  };
  EXPECT_EQ(count_of(""), 2);
  EXPECT_EQ(count_of("count: 7"), 7);
  EXPECT_EQ(count_of("count: auto"), -1);
  for (const std::string text : {"all", "-1", "2.5", "'auto'", "[auto]"}) {
    try {
      count_of("count: " + text);
      ADD_FAILURE() << text;
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr("train.yaml:1: count wants a whole number or auto, got"));
    }
  }
  EXPECT_EQ(config_to_yaml(CountSettings{.count = -1}), "count: auto\n");
  EXPECT_EQ(config_to_yaml(CountSettings{.count = 7}), "count: 7\n");
}

TEST(Config, SettingsThatAnotherRulesOutAreRefusedWithTheReason) {
  const auto read = [](const std::string& text) {
    RuledOut settings;
    bind_config(ConfigTree::parse(text, "train.yaml", {}), settings);
  };
  EXPECT_NO_THROW(read("model:\n  width: 3\n"));
  try {
    read("model:\n  width: 3\ndepth: 2\n");
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_STREQ(error.what(), "train.yaml:3: depth belongs to another model");
  }
  EXPECT_EQ(config_to_yaml(RuledOut()), "model:\n  kind: gpt2\n  width: 64\n  tied: true\n");
}

TEST(Config, DuplicateKeysAreRefused) {
  EXPECT_EQ(refusal("model:\n  width: 3\nseed: 1\nmodel:\n  tied: true\n"),
            "train.yaml:4: key 'model' is already set at train.yaml:1, remove one of them");
  EXPECT_THAT(refusal("model:\n  width: 3\n  width: 3\n"), HasSubstr("train.yaml:3: key 'width'"));
}

TEST(Config, WhatIsNotOneMapOfPlainYamlIsRefused) {
  EXPECT_THAT(refusal("- 1\n"), HasSubstr("train.yaml:1: a configuration is made of"));
  EXPECT_THAT(refusal("hello"), HasSubstr("got 'hello'"));
  EXPECT_THAT(refusal("seed: 1\nmodel: {width: 3\n"), HasSubstr("not valid YAML"));
  EXPECT_THAT(refusal("seed: 1\n  width: 3\n"), HasSubstr("train.yaml:2: not valid YAML"));
  EXPECT_THAT(refusal("seed: 1\n---\nseed: 2\n"), HasSubstr("second YAML document"));
  EXPECT_THAT(refusal("seed: &x 1\n"), HasSubstr("train.yaml:1: YAML anchors"));
  EXPECT_THAT(refusal("seed: !!int 1\n"), HasSubstr("train.yaml:1: YAML tags"));
  EXPECT_THAT(refusal("seed: 1\n[a]: 2\n"), HasSubstr("train.yaml:2: a key is a plain word"));
  EXPECT_THAT(refusal(std::string("seed: 1\nx\x04y: 2\n")), HasSubstr("train.yaml:2: not a text"));
  EXPECT_THAT(refusal(std::string(100000, '[')), HasSubstr("bracket not closed"));
}

TEST(Config, OverridesReplaceAndCreate) {
  const Settings settings =
      settings_from("seed: 3\nmodel:\n  width: 8\n",
                    {"model.width=16", "data.batch.clip=0.25", "data.suffixes=[.h, '.c,c']",
                     "seed=5", "seed=6", "data.folder=/a: b #c=*d", "model.kind='llama'"});
  EXPECT_EQ(settings.seed, 6);
  EXPECT_EQ(settings.model.width, 16);
  EXPECT_EQ(settings.model.kind, "llama");
  EXPECT_EQ(settings.data.batch.clip, 0.25);
  EXPECT_EQ(settings.data.folder, "/a: b #c=*d");
  EXPECT_THAT(settings.data.suffixes, ElementsAre(".h", ".c,c"));
  EXPECT_EQ(settings_from("", {"data.folder="}).data.folder, "");
  EXPECT_EQ(settings_from("model:\n", {"model.width=3"}).model.width, 3);
  EXPECT_EQ(settings_from("seed: wrong\n", {"seed=4"}).seed, 4);
}

TEST(Config, OverridesAreNamedInMessages) {
  EXPECT_EQ(refusal("", {"model.width=wide"}),
            "command line: model.width wants a whole number, got 'wide'");
  EXPECT_EQ(refusal("", {"model.widht=3"}),
            "command line: unknown key 'model.widht', did you mean 'width'?");
  EXPECT_EQ(refusal("", {"seed"}), "command line: 'seed' is not of the form section.key=value");
  EXPECT_THAT(refusal("", {"=3"}), HasSubstr("is not of the form"));
  EXPECT_THAT(refusal("", {"model..width=3"}), HasSubstr("empty part"));
  EXPECT_THAT(refusal("", {"model width=3"}), HasSubstr("a key is made of"));
  EXPECT_THAT(refusal("", {"model={width: 3}"}), HasSubstr("whole section"));
  EXPECT_THAT(refusal("", {"data.suffixes=[a"}),
              HasSubstr("command line: 'data.suffixes=[a': a key is a plain word, got a list; "
                        "is a bracket not closed?"));
  EXPECT_EQ(refusal("seed: 3\n", {"seed.x=4"}),
            "command line: 'seed.x=4': seed is not a section, train.yaml:1 sets it to '3'");
  EXPECT_THAT(refusal("model:\n  width: 3\n", {"model=4"}),
              HasSubstr("command line: model is a section of settings, got '4'"));
}

TEST(Config, FilesAreReadAndTheirMistakesNamed) {
  const testing::TemporaryFolder folder;
  const std::string path = (folder / "run.yaml").string();
  testing::write_text(path, "seed: 12\r\nmodel:\r\n  width: x\r\n");
  Settings settings;
  try {
    bind_config(ConfigTree::load(path, {}), settings);
    FAIL() << "accepted";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.what(), path + ":3: model.width wants a whole number, got 'x'");
  }
  bind_config(ConfigTree::load(path, {"model.width=7"}), settings);
  EXPECT_EQ(settings.seed, 12);
  EXPECT_EQ(settings.model.width, 7);

  for (const std::string& missing : {(folder / "none.yaml").string(), folder.path().string()}) {
    try {
      ConfigTree::load(missing, {});
      ADD_FAILURE() << missing << " accepted";
    } catch (const ConfigError& error) {
      EXPECT_THAT(error.what(), HasSubstr(missing + ": "));
    }
  }
}

TEST(Config, WriterShowsEveryKeyInOrderWithHelp) {
  EXPECT_EQ(config_to_yaml(BatchSettings{}), "micro_batch_size: 8\nclip: 1.0\n");
  EXPECT_EQ(config_to_yaml(Settings{}, true),
            "seed: 1\n"
            "model:  # the model\n"
            "  kind: gpt2  # architecture; one of: gpt2, llama\n"
            "  width: 64  # channels\n"
            "  tied: true  # head shares the embedding\n"
            "batch:\n"
            "  micro_batch_size: 8  # sequences in one micro-batch\n"
            "  clip: 1.0  # largest gradient norm\n"
            "data:\n"
            "  folder: text  # where the text is\n"
            "  suffixes: [\".txt\"]  # files that are read\n"
            "  batch:\n"
            "    micro_batch_size: 8  # sequences in one micro-batch\n"
            "    clip: 1.0  # largest gradient norm\n");
}

TEST(Config, WriterRefusesWhatTheReaderWould) {
  BatchSettings settings;
  settings.clip = std::numeric_limits<double>::infinity();
  EXPECT_THROW(config_to_yaml(settings), ConfigError);
}

// Comparison by bits, so that -0.0 and the last digit count.
bool same(const Settings& a, const Settings& b) {
  return a.seed == b.seed && a.model.width == b.model.width && a.model.tied == b.model.tied &&
         std::memcmp(&a.batch.clip, &b.batch.clip, sizeof(double)) == 0 &&
         a.data.folder == b.data.folder && a.data.suffixes == b.data.suffixes;
}

Settings reload(const Settings& settings, bool with_help) {
  return settings_from(config_to_yaml(settings, with_help));
}

TEST(Config, TextThatLooksLikeSomethingElseSurvivesWriting) {
  Settings settings;
  settings.data.suffixes = {
      "",    " ",      "1",  "1.5", "true", "no",   "null",  "~",    ".inf", "nan", "- a", "a: b",
      "#x",  "a #x",   "*x", "&x",  "!x",   "'q'",  "\"q\"", "\\n",  "\n",   "\t",  "[a]", "{a}",
      "a,b", "%x",     "@x", "`x",  "é",    "\x7f", "0x10",  "1e3",  "|",    ">",   "---", "...",
      "? a", "a\n\nb", "<<", "=",   "a'b",  "\r",   "\x04",  "\x01", "x "};
  settings.data.suffixes.push_back(std::string(1, '\0'));
  for (const std::string& text : settings.data.suffixes) {
    Settings one;
    one.data.folder = text;
    EXPECT_EQ(reload(one, true).data.folder, text) << config_to_yaml(one);
  }
  EXPECT_EQ(reload(settings, false).data.suffixes, settings.data.suffixes);
}

RC_GTEST_PROP(Config, WritingAndReadingGivesTheSame, ()) {
  Settings settings;
  settings.seed = *rc::gen::arbitrary<std::int64_t>();
  settings.model.width = *rc::gen::arbitrary<std::int64_t>();
  settings.model.tied = *rc::gen::arbitrary<bool>();
  const auto bits = *rc::gen::arbitrary<std::uint64_t>();
  std::memcpy(&settings.batch.clip, &bits, sizeof(bits));
  RC_PRE(std::isfinite(settings.batch.clip));
  settings.data.folder = *rc::gen::arbitrary<std::string>();
  settings.data.suffixes = *rc::gen::arbitrary<std::vector<std::string>>();
  RC_ASSERT(same(reload(settings, *rc::gen::arbitrary<bool>()), settings));
}

RC_GTEST_PROP(Config, AnyTextIsReadOrRefused, (const std::string& text)) {
  refusal(text);
  refusal("", {text, "seed=" + text, "data.suffixes=[" + text});
}

TEST(NearestWord, FindsWhatWasMeant) {
  const std::vector<std::string> known = {"micro_batch_size", "width", "learning_rate", "tp",
                                          "num_heads"};
  EXPECT_THAT(nearest_word("micro_bach_size", known), Optional(std::string("micro_batch_size")));
  EXPECT_THAT(nearest_word("widht", known), Optional(std::string("width")));
  EXPECT_THAT(nearest_word("WIDTH", known), Optional(std::string("width")));
  EXPECT_THAT(nearest_word("learningrate", known), Optional(std::string("learning_rate")));
  EXPECT_THAT(nearest_word("batch_size", known), Optional(std::string("micro_batch_size")));
  EXPECT_THAT(nearest_word("heads", known), Optional(std::string("num_heads")));
  EXPECT_EQ(nearest_word("dropout", known), std::nullopt);
  EXPECT_EQ(nearest_word("xy", known), std::nullopt);
  EXPECT_EQ(nearest_word("", known), std::nullopt);
  EXPECT_EQ(nearest_word("width", {}), std::nullopt);
}

}  // namespace
}  // namespace trireme
