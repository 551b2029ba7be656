// Copyright 2026 The Trireme authors
// SPDX-License-Identifier: Apache-2.0

#include "examples/support/glyphs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "tests/support/files.h"
#include "tests/support/temporary_folder.h"
#include "trireme/base/error.h"

namespace trireme::examples {
namespace {

namespace fs = std::filesystem;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::ThrowsMessage;
using trireme::testing::TemporaryFolder;
using trireme::testing::write_text;

const GlyphOptions kFew{.num_train = 37, .num_held_out = 13};

// The first font of each of n families of this machine, ascending by family.
std::vector<FontFile> fonts_of_families(std::size_t n) {
  std::vector<FontFile> firsts;
  std::set<std::string> seen;
  for (const FontFile& font : find_fonts(GlyphOptions().folders)) {
    if (firsts.size() < n && seen.insert(font.family).second) firsts.push_back(font);
  }
  std::sort(firsts.begin(), firsts.end(),
            [](const FontFile& a, const FontFile& b) { return a.family < b.family; });
  return firsts;
}

// A folder that holds them alone.
void link_fonts(const std::vector<FontFile>& fonts, const TemporaryFolder& folder) {
  for (std::size_t i = 0; i < fonts.size(); ++i) {
    const fs::path target = fonts[i].path;
    fs::create_symlink(target, folder / (std::to_string(i) + target.extension().string()));
  }
}

TEST(Glyphs, SplitsHaveTheirSizesAndLabels) {
  const ImageSplits splits = draw_glyphs(kFew);
  EXPECT_THAT(splits.train.images.sizes(), ElementsAre(37, 1, 28, 28));
  EXPECT_THAT(splits.held_out.images.sizes(), ElementsAre(13, 1, 28, 28));
  EXPECT_EQ(splits.train.images.scalar_type(), at::kByte);
  for (std::int64_t i = 0; i < 37; ++i) {
    EXPECT_EQ(splits.train.labels[i].item<std::int64_t>(), i % 10);
    // Ink, and paper around it.
    EXPECT_GT(splits.train.images[i].max().item<int>(), 128) << i;
    EXPECT_GT(splits.train.images[i].eq(0).sum().item<int>(), 28 * 28 / 4) << i;
  }
}

TEST(Glyphs, APictureIsAFunctionOfItsNumberAndTheSeed) {
  const ImageSplits few = draw_glyphs(kFew);
  GlyphOptions more = kFew;
  more.num_train = 53;
  EXPECT_TRUE(draw_glyphs(more).train.images.narrow(0, 0, 37).equal(few.train.images));
  EXPECT_FALSE(few.train.images[3].equal(few.train.images[13]));  // two letters D
  GlyphOptions other = kFew;
  other.seed = 2;
  EXPECT_FALSE(draw_glyphs(other).train.images.equal(few.train.images));
}

// Pictures of kFew.num_train or num_held_out that are the same in both.
std::int64_t num_same(const LabelledImages& a, const LabelledImages& b) {
  return a.images.eq(b.images).flatten(1).all(1).sum().item<std::int64_t>();
}

TEST(Glyphs, HeldOutFontsAreNeverThoseOfTraining) {
  // With the second of two fonts another one, the split that has the first stays as it is and the
  // other has not one picture in common; a split with both fonts would keep some.
  const std::vector<FontFile> fonts = fonts_of_families(3);
  ASSERT_THAT(fonts, SizeIs(3));
  const auto splits_of = [](const FontFile& a, const FontFile& b) {
    const TemporaryFolder folder;
    link_fonts({a, b}, folder);
    GlyphOptions options = kFew;
    options.folders = {folder.path().string()};
    return draw_glyphs(options);
  };
  const auto [first, second, third] = std::tie(fonts[0], fonts[1], fonts[2]);
  const ImageSplits before = splits_of(first, second);
  const ImageSplits after = splits_of(first, third);
  const std::vector<std::int64_t> same = {num_same(before.train, after.train),
                                          num_same(before.held_out, after.held_out)};
  EXPECT_THAT(same, AnyOf(ElementsAre(37, 0), ElementsAre(0, 13)));
}

TEST(Glyphs, FontsAreFoundBelowTheFolders) {
  const std::vector<FontFile> two = fonts_of_families(2);
  ASSERT_THAT(two, SizeIs(2));
  const TemporaryFolder folder;
  link_fonts(two, folder);
  write_text(folder / "broken.ttf", "no font");
  write_text(folder / "readme.txt", "text");
  fs::create_directory(folder / "below");
  fs::copy_file(two[0].path, folder / "below" / "copy.ttf");
  const auto found = find_fonts({folder.path().string(), (folder / "missing").string()});
  ASSERT_THAT(found, SizeIs(3));
  EXPECT_EQ(found[2].path, (folder / "below" / "copy.ttf").string());
  EXPECT_EQ(found[2].family, two[0].family);
  EXPECT_EQ(found[1].family, two[1].family);
}

TEST(Glyphs, OneFamilyIsTooFew) {
  const TemporaryFolder folder;
  GlyphOptions options = kFew;
  options.folders = {folder.path().string()};
  EXPECT_THAT(find_fonts(options.folders), IsEmpty());
  EXPECT_THAT([&] { draw_glyphs(options); }, ThrowsMessage<DataError>(HasSubstr("0 families")));
  link_fonts(fonts_of_families(1), folder);
  EXPECT_THAT([&] { draw_glyphs(options); }, ThrowsMessage<DataError>(HasSubstr("1 families")));
}

}  // namespace
}  // namespace trireme::examples
