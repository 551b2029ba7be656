// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "trireme/data/corpus.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"
#include "trireme/data/file_io.h"
#include "trireme/data/token_shards.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using testing::read_text;
using testing::TemporaryFolder;
using testing::write_text;

// Texts that differ, each of a few hundred bytes.
std::string story(int number) {
  std::string text;
  for (int line = 0; line < 3 + number % 5; ++line) {
    text += fmt::format("line {} of story {}: the oars of bank {} pull {} times\n", line, number,
                        number * 7 % 11, line * number);
  }
  return text;
}

// A folder with text in it and a place for the output.
class Corpus : public ::testing::Test {
 protected:
  void write_stories(int count) {
    for (int i = 0; i < count; ++i) {
      write_text(folder_ / fmt::format("text/{}/story {}.txt", i % 3, i), story(i));
    }
  }
  PrepareOptions options() const {
    PrepareOptions options{.text = (folder_ / "text").string(),
                           .output = (folder_ / "out/data").string()};
    options.train.vocab_size = 320;
    options.validation_fraction = 0.2;
    return options;
  }
  PrepareReport prepare(const PrepareOptions& options) const {
    return prepare_tokens(options, nullptr);
  }
  std::string complaint(const PrepareOptions& options) const {
    try {
      prepare(options);
    } catch (const DataError& error) {
      return error.what();
    }
    return "no complaint";
  }
  static std::vector<std::string> documents(const std::string& output, const std::string& split) {
    const Tokenizer tokenizer = Tokenizer::load(output + "/tokenizer.json");
    const TokenShards shards(output, split);
    shards.verify();
    std::vector<std::int64_t> ids(static_cast<std::size_t>(shards.num_tokens()));
    shards.read(0, ids);
    std::vector<std::string> documents;
    std::vector<TokenId> document;
    for (const std::int64_t id : ids) {
      if (id == tokenizer.end_of_text()) {
        documents.push_back(tokenizer.decode(document));
        document.clear();
      } else {
        document.push_back(static_cast<TokenId>(id));
      }
    }
    EXPECT_THAT(document, IsEmpty()) << "every document ends with the end of text";
    return documents;
  }
  // What stands in the folder of the output, but the output itself.
  std::vector<std::string> beside_output() const {
    std::vector<std::string> names;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder_ / "out")) {
      if (entry.path().filename() != "data") {
        names.push_back(entry.path().filename().string());
      }
    }
    return names;
  }

  const TemporaryFolder folder_;
};

TEST_F(Corpus, EveryFileIsInExactlyOneSplitWholeAndInPathOrder) {
  write_stories(40);
  std::vector<std::string> phases;
  const PrepareReport report = prepare_tokens(options(), [&](const PrepareProgress& progress) {
    EXPECT_LE(progress.done, progress.total);
    if (phases.empty() || phases.back() != progress.phase) {
      phases.emplace_back(progress.phase);
    }
  });
  EXPECT_THAT(phases, ElementsAre("reading", "training tokenizer", "encoding"));

  std::vector<fs::path> paths;
  for (const auto& entry : fs::recursive_directory_iterator(folder_ / "text")) {
    if (entry.is_regular_file()) {
      paths.push_back(entry.path());
    }
  }
  std::sort(paths.begin(), paths.end());
  const std::vector<std::string> train = documents(options().output, "train");
  const std::vector<std::string> validation = documents(options().output, "validation");
  std::size_t next_train = 0;
  std::size_t next_validation = 0;
  std::int64_t bytes = 0;
  std::int64_t validation_bytes = 0;
  for (const fs::path& path : paths) {
    const std::string text = read_text(path);
    bytes += static_cast<std::int64_t>(text.size());
    if (next_train < train.size() && train[next_train] == text) {
      ++next_train;
    } else {
      ASSERT_LT(next_validation, validation.size()) << path;
      ASSERT_EQ(validation[next_validation++], text) << path;
      validation_bytes += static_cast<std::int64_t>(text.size());
    }
  }
  EXPECT_EQ(next_train, train.size());
  EXPECT_EQ(next_validation, validation.size());
  EXPECT_GE(validation_bytes, bytes / 5);
  EXPECT_LE(validation_bytes, bytes * 2 / 5);

  EXPECT_EQ(report.files, 40);
  EXPECT_EQ(report.bytes, bytes);
  EXPECT_EQ(report.train_tokens, TokenShards(options().output, "train").num_tokens());
  EXPECT_EQ(report.validation_tokens, TokenShards(options().output, "validation").num_tokens());
  EXPECT_EQ(report.vocab_size, 320);
  EXPECT_EQ(report.tokenizer_hash, TokenShards(options().output, "train").tokenizer_hash());
  EXPECT_THAT(report.skipped, IsEmpty());
  EXPECT_FALSE(report.reused);
  EXPECT_THAT(beside_output(), IsEmpty());
}

TEST_F(Corpus, TheNumberOfThreadsDoesNotShow) {
  write_stories(57);
  const auto outputs = [&](int threads) {
    PrepareOptions with = options();
    with.threads = threads;
    with.output = (folder_ / fmt::format("out/{}", threads)).string();
    prepare(with);
    std::map<std::string, std::string> files;
    for (const fs::directory_entry& entry : fs::directory_iterator(with.output)) {
      files[entry.path().filename().string()] = read_text(entry.path());
    }
    return files;
  };
  const auto one = outputs(1);
  EXPECT_EQ(one.size(), 4U);
  EXPECT_EQ(one, outputs(3));
  EXPECT_EQ(one, outputs(8));
}

TEST_F(Corpus, TheSplitFollowsTheSeed) {
  write_stories(40);
  const auto validation_of = [&](std::uint64_t seed) {
    PrepareOptions with = options();
    with.seed = seed;
    with.output = (folder_ / fmt::format("out/{}", seed)).string();
    prepare(with);
    return documents(with.output, "validation");
  };
  EXPECT_NE(validation_of(1), validation_of(2));
}

TEST_F(Corpus, EverySkipIsCountedWithItsReason) {
  using namespace std::string_literals;
  write_stories(5);
  write_text(folder_ / "text/empty", "");
  write_text(folder_ / "text/image", "some\0bytes"s);
  write_text(folder_ / "text/1/copy", story(4));
  write_text(folder_ / "text/2/copy", story(4));
  write_text(folder_ / "text/large", std::string(5000, 'x'));
  write_text(folder_ / "text/latin1", "caf\xe9");  // not UTF-8, but text
  fs::create_symlink(folder_ / "text/empty", folder_ / "text/link");
  fs::create_directory_symlink(folder_ / "text/1", folder_ / "text/0/link");
  ASSERT_EQ(::mkfifo((folder_ / "text/pipe").c_str(), 0600), 0);
  PrepareOptions with = options();
  with.max_file_bytes = 4999;
  const PrepareReport report = prepare(with);
  EXPECT_EQ(report.files, 6);
  EXPECT_THAT(report.skipped, ElementsAre(Pair("binary", 1), Pair("duplicate", 2), Pair("empty", 1),
                                          Pair("not a regular file", 1), Pair("symbolic link", 2),
                                          Pair("too large", 1)));
}

TEST_F(Corpus, AFileWithoutPermissionIsCounted) {
  write_stories(5);
  write_text(folder_ / "text/secret", "nobody may read this");
  fs::permissions(folder_ / "text/secret", fs::perms::none);
  const PrepareReport report = prepare(options());
  if (::geteuid() == 0) {  // root reads everything
    EXPECT_EQ(report.files, 6);
  } else {
    EXPECT_EQ(report.files, 5);
    EXPECT_THAT(report.skipped, ElementsAre(Pair("unreadable", 1)));
  }
}

TEST_F(Corpus, WithoutTextNothingIsLeft) {
  using namespace std::string_literals;
  EXPECT_THAT(complaint(options()), HasSubstr("No such file or directory"));
  fs::create_directories(folder_ / "text");
  EXPECT_THAT(complaint(options()), HasSubstr("no text file in"));
  write_text(folder_ / "text/a", "\0"s);
  write_text(folder_ / "text/b", "\0\0"s);
  write_text(folder_ / "text/c", "");
  EXPECT_THAT(complaint(options()), HasSubstr("skipped: 2 binary, 1 empty"));
  EXPECT_FALSE(fs::exists(options().output));
  EXPECT_THAT(beside_output(), IsEmpty());
}

TEST_F(Corpus, AFailureOnTheWayLeavesNothing) {
  write_stories(9);
  struct Stop {};
  for (const std::string phase : {"reading", "training tokenizer", "encoding"}) {
    EXPECT_THROW(prepare_tokens(options(),
                                [&](const PrepareProgress& progress) {
                                  if (progress.phase == phase) {
                                    throw Stop();
                                  }
                                }),
                 Stop);
    EXPECT_FALSE(fs::exists(options().output)) << phase;
    EXPECT_THAT(beside_output(), IsEmpty()) << phase;
  }
}

TEST_F(Corpus, WhatAKilledRunLeftIsReplaced) {
  write_stories(9);
  write_text(folder_ / "out/data.partial/train-00000.tokens.tmp", "half of a shard");
  prepare(options());
  EXPECT_THAT(beside_output(), IsEmpty());
  EXPECT_EQ(documents(options().output, "train").size() +
                documents(options().output, "validation").size(),
            9U);
}

TEST_F(Corpus, TwoThatPrepareTheSameDoNotMeet) {
  write_stories(9);
  const std::string partial = options().output + ".partial";
  fs::create_directories(partial);
  {
    const FileDescriptor other(::open(partial.c_str(), O_RDONLY | O_DIRECTORY));
    ASSERT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
    EXPECT_THAT(complaint(options()), HasSubstr("another process is preparing this output"));
    EXPECT_TRUE(fs::exists(partial));
  }
  prepare(options());
}

TEST_F(Corpus, TheSameIsReusedAndAnythingElseRefused) {
  write_stories(9);
  const PrepareReport first = prepare(options());
  const fs::file_time_type written = fs::last_write_time(folder_ / "out/data/train-00000.tokens");
  PrepareOptions with = options();
  with.threads = 2;    // changes nothing
  with.output += "/";  // neither does this
  const PrepareReport second = prepare(with);
  EXPECT_TRUE(second.reused);
  EXPECT_EQ(second.train_tokens, first.train_tokens);
  EXPECT_EQ(second.validation_tokens, first.validation_tokens);
  EXPECT_EQ(second.tokenizer_hash, first.tokenizer_hash);
  EXPECT_EQ(second.files, first.files);
  EXPECT_EQ(second.bytes, first.bytes);

  with.train.vocab_size = 321;
  EXPECT_THAT(complaint(with), HasSubstr("tokenizer_vocab_size 320 there, 321 here"));
  with = options();
  with.seed = 2;
  EXPECT_THAT(complaint(with), HasSubstr("seed 1 there, 2 here"));
  write_text(folder_ / "text/0/story 0.txt", "another story");
  EXPECT_THAT(complaint(options()), HasSubstr("files_hash"));
  EXPECT_EQ(fs::last_write_time(folder_ / "out/data/train-00000.tokens"), written);
}

TEST_F(Corpus, ReusedDataIsWhole) {
  write_stories(9);
  prepare(options());
  fs::resize_file(folder_ / "out/data/train-00000.tokens", 200);
  EXPECT_THAT(complaint(options()), HasSubstr("is truncated"));
  fs::remove(folder_ / "out/data/tokenizer.json");
  EXPECT_THAT(complaint(options()), HasSubstr("tokenizer.json: No such file"));
  write_text(folder_ / "out/data/manifest.json", "{}");
  EXPECT_THAT(complaint(options()), HasSubstr("is no manifest"));
}

TEST_F(Corpus, NothingElseIsOverwritten) {
  write_stories(9);
  write_text(folder_ / "out/data/thesis.tex", "years of work");
  EXPECT_THAT(complaint(options()), HasSubstr("holds something else than prepared tokens"));
  EXPECT_EQ(read_text(folder_ / "out/data/thesis.tex"), "years of work");
  PrepareOptions with = options();
  with.output = (folder_ / "out/data/thesis.tex").string();
  EXPECT_THAT(complaint(with), HasSubstr("exists and is no folder"));
  with.output += "/below";
  EXPECT_THAT(complaint(with), HasSubstr("Not a directory"));
}

TEST_F(Corpus, AnEmptyOutputFolderIsFine) {
  write_stories(9);
  fs::create_directories(options().output);
  EXPECT_FALSE(prepare(options()).reused);
  EXPECT_TRUE(prepare(options()).reused);
}

TEST_F(Corpus, OutputInsideTheTextIsNotText) {
  write_stories(9);
  PrepareOptions with = options();
  with.output = (folder_ / "text/prepared").string();
  EXPECT_EQ(prepare(with).files, 9);
  EXPECT_TRUE(prepare(with).reused);
}

TEST_F(Corpus, OneFileGivesATailForValidation) {
  std::string text;
  for (int i = 0; i < 50; ++i) {
    text += story(i);
  }
  write_text(folder_ / "text/all.txt", text);
  for (const char* const given : {"text", "text/all.txt"}) {
    PrepareOptions with = options();
    with.text = (folder_ / given).string();
    with.output = (folder_ / "out" / fs::path(given).filename()).string();
    EXPECT_EQ(prepare(with).files, 1);
    const std::vector<std::string> train = documents(with.output, "train");
    const std::vector<std::string> validation = documents(with.output, "validation");
    ASSERT_EQ(train.size(), 1U);
    ASSERT_EQ(validation.size(), 1U);
    EXPECT_EQ(train[0] + validation[0], text);
    EXPECT_EQ(train[0].back(), '\n');
    EXPECT_NEAR(static_cast<double>(validation[0].size()) / static_cast<double>(text.size()), 0.2,
                0.01);
  }
}

TEST_F(Corpus, TwoFilesGiveOneEach) {
  write_text(folder_ / "text/large.txt", story(1) + story(2) + story(3));
  write_text(folder_ / "text/small.txt", story(7));
  prepare(options());
  EXPECT_THAT(documents(options().output, "train"), ElementsAre(story(1) + story(2) + story(3)));
  EXPECT_THAT(documents(options().output, "validation"), ElementsAre(story(7)));
}

TEST_F(Corpus, OneByteIsText) {
  write_text(folder_ / "text/a", "x");
  const PrepareReport report = prepare(options());
  EXPECT_EQ(report.train_tokens, 2);
  EXPECT_EQ(report.validation_tokens, 0);
}

TEST_F(Corpus, AGivenTokenizerIsUsed) {
  write_stories(9);
  const std::string path = (folder_ / "given.json").string();
  const std::string sample = story(3) + story(8);
  const std::vector<std::string_view> samples = {sample};
  const Tokenizer given = train_tokenizer(samples, {.vocab_size = 300});
  given.save(path);
  PrepareOptions with = options();
  with.tokenizer = path;
  EXPECT_EQ(prepare(with).tokenizer_hash, given.hash());
  EXPECT_TRUE(prepare(with).reused);
  EXPECT_THAT(complaint(options()), HasSubstr("tokenizer"));
}

TEST_F(Corpus, OptionsThatCannotBeAreRefused) {
  write_stories(2);
  const auto refused = [&](auto change) {
    PrepareOptions with = options();
    change(with);
    EXPECT_THROW(prepare(with), ConfigError);
  };
  refused([](PrepareOptions& with) { with.text = ""; });
  refused([](PrepareOptions& with) { with.output = ""; });
  refused([](PrepareOptions& with) { with.threads = 0; });
  refused([](PrepareOptions& with) { with.validation_fraction = -0.1; });
  refused([](PrepareOptions& with) { with.validation_fraction = 1; });
  refused([](PrepareOptions& with) { with.max_file_bytes = 0; });
  refused([](PrepareOptions& with) { with.tokenizer_sample_bytes = 0; });
  refused([](PrepareOptions& with) { with.train.vocab_size = 256; });
  EXPECT_FALSE(fs::exists(options().output));
}

TEST_F(Corpus, NothingIsHeldOutWhenNotAsked) {
  for (const int files : {1, 3}) {
    write_stories(files);
    PrepareOptions with = options();
    with.output += std::to_string(files);
    with.validation_fraction = 0;
    const PrepareReport report = prepare(with);
    EXPECT_EQ(report.validation_tokens, 0);
    EXPECT_GT(report.train_tokens, 0);
  }
}

}  // namespace
}  // namespace trireme
