"""What a post is turned into: pure functions of content, time and metadata, and the Spark stages that apply them."""
