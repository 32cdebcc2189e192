mod ends;
mod kills;
mod scripted;
