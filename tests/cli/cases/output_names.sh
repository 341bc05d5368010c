# What --out and --resume may name is settled before any work is done; the message says why not.
model="$TINY/model"
train="temper finetune --model $model --data $TINY/rows.jsonl --steps 2 --batch 2 --quiet"
ask="temper generate --model $model --prompt hello --max-new-tokens 2 --quiet"
refuse() { # CODE WORDS COMMAND...
    code=$1 words=$2
    shift 2
    expect "$code" "$@" >printed 2>message
    grep -q "$words" message || fail "'$words' is not in: $(cat message)"
    same "$(wc -l <message)" 1 "lines of the message"
    [ ! -s printed ] || fail "a result in spite of: $(cat message)"
}

# An empty directory is as good as none, a full one is not.
mkdir empty state full
echo kept >full/file
$train --out empty --resume state >/dev/null
temper inspect empty >/dev/null
refuse 10 "already exists" $train --out full
refuse 10 "no resumable checkpoint" $train --out new --resume full
[ ! -e new ] || fail "an output of a run that failed"
same "$(cat full/file)" kept "a file in the way"
refuse 10 "holds no model" $train --out full --overwrite
same "$(cat full/file)" kept "somebody's directory"
echo left >empty/left
$train --out empty --overwrite >/dev/null
[ ! -e empty/left ] || fail "--overwrite mixed two directories"
refuse 2 "same directory as --out" $train --out place --resume place/ --save-every 1
[ ! -e place ] || fail "a place for two things"

echo text >file
refuse 10 "no directory" $train --out file --overwrite
refuse 2 "cannot be an output" $train --out . --overwrite
refuse 2 "cannot be an output" $train --out full/../ --overwrite
refuse 7 "mount point" $train --out /proc --overwrite
refuse 4 "not a directory" $train --out file/below
ln -s nowhere link
refuse 10 "leads nowhere" $train --out link
refuse 10 "leads nowhere" $ask --out link
refuse 10 "no file" $ask --out full --overwrite
refuse 10 "no file" $ask --out /dev/null --overwrite
refuse 10 "already exists" $ask --out file
same "$(cat file)" text "a file in the way"
$ask --out file --overwrite
[ "$(cat file)" != text ] || fail "--overwrite did not"
[ -c /dev/null ] || fail "/dev/null is no device any more"

# A link to a directory stands for it.
mkdir real
ln -s real to-real
$train --out to-real >/dev/null
[ -L to-real ] || fail "the link was replaced"
temper inspect real >/dev/null

# No half-made thing is left beside any of them.
same "$(find . -name '*.tmp*')" "" leftovers
